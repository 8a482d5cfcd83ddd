"""The files of one scan, in a folder or a zip file, and their hashes."""

from __future__ import annotations

import errno
import hashlib
import lzma
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from voxplain.cohort.trees import image_in_name, is_volume, split_zip
from voxplain.faults import DataFault

_BLOCK = 1 << 20
# A scan's files of a zip file have some 100 MB; a zip file of a few kB can hold terabytes of zeros.
_MOST_UNPACKED = 4 << 30
_MOST_ENTRIES = 20_000  # one for each slice
_LONGEST_NAME = 255  # bytes, on nearly all file systems
# Errors of the system from a place that the zip file gives, beside those without number.
_OF_CONTENT = (None, errno.EINVAL, errno.EOVERFLOW)
# Errors of the system that come from one file of the user, and not from the machine.
_OF_FILE = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)
# Exceptions of unpacking a zip file that is corrupt or encrypted.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
)


@contextmanager
def open_source(
    place: str | Path, image: str = "", companions: Sequence[str | Path] = ()
) -> Iterator[list[Path]]:
    """The files of a scan, as local paths.

    Parameters
    ----------
    place
        A folder, a volume, or either within a zip file, see :class:`voxplain.cohort.trees.Tree`.
        Subfolders and hidden files of a folder are left out.
    image
        Image id: files with another image id in their names are left out.
    companions
        Files of the scan that are at other places.

    Yields
    ------
    Paths, sorted by name. Files of a zip file are deleted afterwards.

    Raises
    ------
    DataFault
        The zip file is truncated or encrypted, its files would fill the disk, or a file may not be
        read.
    """
    with tempfile.TemporaryDirectory() as scratch:
        paths: list[Path] = []
        try:
            paths += _local_files(place, Path(scratch))
            for number, companion in enumerate(companions):
                folder = Path(scratch) / f"companion{number}"
                paths += _local_files(companion, folder)
            yield _of_image(paths, image)
        except OSError as error:
            places = [place, *companions]
            sources = {Path(split_zip(path)[0]) for path in places}.union(paths)
            named = error.filename if isinstance(error.filename, str | Path) else ""
            if error.errno not in _OF_FILE or Path(named) not in sources:
                raise
            raise DataFault(
                f"{named} cannot be read ({error.strerror})",
                "make it readable for you, then run verify_inputs, which says how to take the scan "
                "again",
            ) from error
        except DataFault as fault:
            # Messages name the place instead of the temporary folder.
            parts = [text.replace(scratch, str(place)) for text in (fault.reason, fault.remedy)]
            raise DataFault(*parts) from fault


def _local_files(place: str | Path, scratch: Path) -> list[Path]:
    archive, inner = split_zip(place)
    path = Path(place)
    if not inner and not (path.suffix.lower() == ".zip" and path.is_file()):
        if path.is_dir():
            files = (entry for entry in path.iterdir() if entry.is_file())
            return sorted(entry for entry in files if not entry.name.startswith("."))
        pair = [path.with_suffix(ending) for ending in (".img", ".IMG")]
        header = path.suffix.lower() == ".hdr"
        return [entry for entry in (path, *(pair if header else ())) if entry.is_file()]
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        return _unpack(archive, inner, scratch)
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno not in _OF_CONTENT:
            raise  # the disk is at fault, not the file's content
        raise DataFault(
            f"{inner or 'its top'} cannot be unpacked from {archive} ({error})",
            "download the zip file again",
        ) from error


def _unpack(archive: str, inner: str, scratch: Path) -> list[Path]:
    """Unpack a folder or a volume of a zip file; names in the zip file cannot choose the folder."""
    wanted = PurePosixPath(inner or ".")
    stem = wanted.with_suffix("") if wanted.suffix.lower() == ".hdr" else None
    unpacked = []
    chosen = []
    with zipfile.ZipFile(archive) as packed:
        for entry in packed.infolist():
            name = PurePosixPath(entry.filename)
            paired = stem == name.with_suffix("") and name.suffix.lower() == ".img"
            if entry.is_dir() or name.name.startswith("."):
                continue
            if name.parent == wanted or name == wanted or paired:
                chosen.append(entry)
        # No more is unpacked of a file than this size, whatever follows.
        size = sum(entry.file_size for entry in chosen)
        if size > _MOST_UNPACKED or len(chosen) > _MOST_ENTRIES:
            raise DataFault(
                f"{inner or 'the top'} of {archive} unpacks to {len(chosen)} files of {size} bytes "
                f"together, expected at most {_MOST_ENTRIES} files of {_MOST_UNPACKED} bytes",
                "unpack the zip file by hand if this is right, or download it again",
            )
        for entry in chosen:
            target = scratch / _short(PurePosixPath(entry.filename).name)
            with packed.open(entry) as source, target.open("wb") as stream:
                shutil.copyfileobj(source, stream, _BLOCK)
            unpacked.append(target)
    return sorted(set(unpacked))  # a zip file may hold two entries of one name


def _short(name: str) -> str:
    """A name that file systems can hold: of a longer one its digest and its end.

    The end of a name has the image id and the kind of the file.
    """
    raw = os.fsencode(name)
    if len(raw) <= _LONGEST_NAME:
        return name
    end = raw[-150:].decode("utf-8", "ignore")
    return f"{hashlib.sha256(raw).hexdigest()[:16]}{end}"


def _of_image(files: list[Path], image: str) -> list[Path]:
    """The files without those that have another image id in their names."""
    ids = {path: image_in_name(path.name) for path in files}
    if not image or image not in ids.values():
        return files
    return [path for path in files if ids[path] in ("", image)]


def digest_files(files: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of each file, by its name."""
    digests = {}
    for path in files:
        with path.open("rb") as stream:
            digests[path.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests


def find_changes(
    place: str | Path,
    digests_path: str | Path,
    image: str = "",
    companions: Sequence[str | Path] = (),
) -> list[str]:
    """Changes of a scan's files since their digests were written (format of ``sha256sum``).

    Returns
    -------
    One line for every file that was replaced, removed or added; empty if nothing changed.
    """
    lines = Path(digests_path).read_text("utf-8", "surrogateescape").splitlines()
    recorded = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    try:
        with open_source(place, image, companions) as files:
            present = digest_files(files)
    except (DataFault, FileNotFoundError):
        present = {}  # gone as a whole
    changes = {
        "replaced": [n for n in recorded if n in present and present[n] != recorded[n]],
        "removed": [n for n in recorded if n not in present],
        "added": [n for n in present if n not in recorded],
    }
    folder = Path(place).parent if is_volume(str(place)) else Path(place)
    return [f"{folder / name} was {word}" for word, names in changes.items() for name in names]
