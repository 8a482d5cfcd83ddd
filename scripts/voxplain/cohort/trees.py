"""Search for an archive's images in folders, single files, and downloaded zip files.

Only the standard library is needed, see :mod:`voxplain.cohort.scans`. Folders and the contents of
zip files are listed, no image is opened.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from voxplain.faults import ParameterFault, SetupFault

# Name endings, in lower case, of files that nibabel reads; an .img file belongs to its .hdr file.
VOLUME_ENDINGS = (".nii", ".nii.gz", ".hdr")
_IMAGE_FOLDER = re.compile(r"^[ID]([0-9]+)\Z", re.IGNORECASE | re.ASCII)
_IMAGE_OR_DIGITS = re.compile(r"^[ID]?([0-9]+)\Z", re.IGNORECASE | re.ASCII)
_SERIES_FOLDER = re.compile(r"^S[0-9]+\Z", re.IGNORECASE | re.ASCII)
_IMAGE_IN_NAME = re.compile(r"_[ID]([0-9]+)(\.[A-Za-z.]+)\Z")
# Name endings of files with an image id that are not slices of the image.
_BESIDE = (".img", ".csv", ".txt", ".json", ".png", ".jpg", ".pdf")
_MOST_FOLDERS = 1_000_000  # a cohort of 100,000 scans has fewer; a wrong root may have no end
_ZIP = ".zip"
_PARTS = 4  # folders that the same image has in a zip file and unpacked: patient to image


@dataclass
class Tree:
    """The images in the folders and zip files of a cohort.

    Attributes
    ----------
    images
        Image id with its leading ``I`` to the places of its files: a folder, a volume, or either in
        a zip file, written as if the zip file were a folder (``one.zip/ADNI/011_S_0003/...``).
    metadata
        Image id to the archive's XML file about it.
    """

    images: dict[str, list[str]] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    # Image id to the real paths of its places, for images with several.
    _real: dict[str, set[str]] = field(default_factory=dict, repr=False, compare=False)

    def add(self, image: str, place: str) -> None:
        """Add a place of an image, unless it has the same files as one that is known."""
        places = self.images.setdefault(image, [])
        if places:
            # Links may give the same folder several names.
            known = self._real.setdefault(image, {os.path.realpath(places[0])})
            real = os.path.realpath(place)
            if real in known:
                return
            known.add(real)
        places.append(place)


def image_in_name(name: str) -> str:
    """The image id at the end of a file's name (``..._S13893_I14782.dcm``), else empty."""
    match = _IMAGE_IN_NAME.search(name)
    return f"I{match.group(1)}" if match else ""


def is_volume(name: str) -> bool:
    """Whether a file's name is that of a volume, NIfTI or Analyze."""
    return name.lower().endswith(VOLUME_ENDINGS)


def split_zip(place: str | Path) -> tuple[str, str]:
    """The zip file of a place and the path inside it; else the place and an empty string."""
    text = str(place)
    for match in re.finditer(r"\.zip/", text, re.IGNORECASE):
        end = match.end() - 1
        if Path(text[:end]).is_file():
            return text[:end], text[end + 1 :]
    return text, ""


def once(paths: Sequence[Any]) -> list[Any]:
    """The paths without those that links lead to the same file or folder as an earlier path."""
    if len(paths) < 2:
        return list(paths)
    first: dict[str, Any] = {}
    for path in paths:
        first.setdefault(os.path.realpath(path), path)
    return list(first.values())


def find_images(roots: Sequence[str | Path]) -> Tree:
    """The images in an archive's folders and zip files.

    The archive's layout is ``<PTID>/<description>/<date_time>/<image id>``. Any other layout works
    too, if the folder of an image is named by its id (``I32237``), or if its files are
    (``..._S13893_I14782.dcm``, ``..._I14782.nii``). Zip files are searched, also those inside the
    folders; an image that is unpacked beside its zip file counts once.

    Parameters
    ----------
    roots
        Folders and zip files.

    Raises
    ------
    SetupFault
        A root is neither a folder nor a zip file, or no root has an image.
    """
    tree, zips = Tree(), []
    visited: set[tuple[int, int]] = set()
    for root in map(Path, roots):
        if root.is_dir():
            zips += _walk(str(root), tree, visited)
        elif root.is_file() and root.suffix.lower() == _ZIP:
            zips.append(str(root))
        elif root.exists():
            raise ParameterFault("roots", f"has {root}, which is neither a folder nor a zip file")
        else:
            raise ParameterFault("roots", f"has {root}, which does not exist")
    for path in once(zips):
        _look_into(path, tree)
    if not tree.images:
        raise ParameterFault(
            "roots",
            f"has no image in {', '.join(map(str, roots))}; expected the folder that holds the "
            "<PTID> folders, with images as <PTID>/<description>/<date_time>/<image id>, or files "
            "whose names end in _<image id>.nii or .dcm",
        )
    return tree


def _walk(root: str, tree: Tree, visited: set[tuple[int, int]]) -> list[str]:
    """Add the images of a folder and the folders below it to a tree; returns their zip files.

    Folders of ``visited`` (device and number) are left out and new ones are added to it, so that
    links to folders above end.
    """
    zips, waiting = [], [root]
    while waiting:
        folder = waiting.pop()
        entries = _listed(folder, visited)
        files, folders = [], []
        for entry in entries:
            if _is(entry.is_dir):
                if image := _image_of_folder(entry):
                    tree.add(image, entry.path)
                else:
                    folders.append(entry.path)
            elif _is(entry.is_file):  # and no pipe, no device, no link to what is not there
                if entry.name.lower().endswith(_ZIP):
                    zips.append(entry.path)
                else:
                    files.append(entry.name)
        _add_files(tree, folder, files)
        waiting += reversed(folders)
    return zips


def _listed(folder: str, visited: set[tuple[int, int]]) -> list[os.DirEntry]:
    """The entries of a folder, sorted by name, without hidden ones; none of a visited folder."""
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:
            return []
        visited.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as listed:
            entries = [entry for entry in listed if not entry.name.startswith(".")]
    except OSError as error:
        raise SetupFault(
            f"image folder {folder} cannot be listed ({error.strerror}); make it readable, or give "
            "folders below it"
        ) from None
    if len(visited) > _MOST_FOLDERS:
        raise ParameterFault(
            "roots",
            f"has more than {_MOST_FOLDERS} folders, such as {folder}; give the folders that hold "
            "images",
        )
    return sorted(entries, key=lambda entry: entry.name)


def _is(kind: Callable[[], bool]) -> bool:
    """Whether an entry is of a kind; False for a link to itself."""
    try:
        return kind()
    except OSError:
        return False


def _image_of_folder(folder: os.DirEntry) -> str:
    match = _IMAGE_OR_DIGITS.match(folder.name)
    if match is None:
        return ""
    if not _IMAGE_FOLDER.match(folder.name):
        # Digits without a letter may be an image id, a year or a site.
        try:
            with os.scandir(folder.path) as listed:
                if any(_is(entry.is_dir) or image_in_name(entry.name) for entry in listed):
                    return ""
        except OSError:
            return ""  # which is said when the folder is listed
    return f"I{match.group(1)}"


def _add_files(tree: Tree, folder: str, names: Iterable[str]) -> None:
    """Add images whose files have the id in their names: volumes by file, slices by folder.

    A folder of one series (``S13893``) is the folder of its image, whatever its files are.
    """
    of_series = _SERIES_FOLDER.match(PurePosixPath(folder).name)
    sliced = set()
    for name in names:
        image = image_in_name(name)
        if not image:
            continue
        if name.lower().endswith(".xml"):
            tree.metadata[image] = f"{folder}/{name}"
        elif is_volume(name) and not of_series:
            tree.add(image, f"{folder}/{name}")
        elif of_series or not name.lower().endswith(_BESIDE):
            sliced.add(image)
    for image in sorted(sliced):
        tree.add(image, folder)


def _look_into(path: str, tree: Tree) -> None:
    """Add the images of a zip file that are not unpacked in a folder of the same path."""
    packed = Tree()
    folders: dict[str, list[str]] = {}
    for name in zip_names(path):
        inner = PurePosixPath(name)
        if any(part.startswith(".") or part == "__MACOSX" for part in inner.parts):
            continue
        folders.setdefault(str(inner.parent), []).append(inner.name)
    for folder, names in sorted(folders.items()):
        place = path if folder == "." else f"{path}/{folder}"
        match = _IMAGE_OR_DIGITS.match(PurePosixPath(folder).name)
        digits = match and not _IMAGE_FOLDER.match(PurePosixPath(folder).name)
        if match and not (digits and any(map(image_in_name, names))):
            packed.add(f"I{match.group(1)}", place)
        else:
            _add_files(packed, place, sorted(names))
    for image, places in packed.images.items():
        known_places = (PurePosixPath(other).parts for other in tree.images.get(image, ()))
        # An unpacked image has folders of the same names: patient, description, time, image.
        known = {parts[-n:] for parts in known_places for n in range(1, _PARTS + 1)}
        for place in places:
            inner = PurePosixPath(place.removeprefix(path).lstrip("/")).parts[-_PARTS:]
            if not inner or inner not in known:
                tree.add(image, place)
    for image, place in packed.metadata.items():
        tree.metadata.setdefault(image, place)


def zip_names(path: str | Path) -> Iterator[str]:
    """Names of the files in a zip file.

    Raises
    ------
    SetupFault
        It is not a zip file, or it is truncated.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            yield from (name for name in packed.namelist() if not name.endswith("/"))
    except (zipfile.BadZipFile, NotImplementedError, OSError, UnicodeDecodeError) as error:
        raise SetupFault(f"zip file {path} cannot be read ({error}); download it again") from None
