"""How a volume file lies in space: the two affines of NIfTI, and which of them is taken."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np

from voxplain.faults import AvoidableFault, DataFault
from voxplain.volumes import Grid, read_array, read_image

_BLOCK = 1 << 20
# A head of 20 cm in voxels of 0.25 mm has this many.
_MOST_VOXELS = 2**29
_FORMS = ("sform", "qform")
_ALIGNED = 2  # code of an affine that was aligned to something
_LOOK = "look which of the two is right, as in a viewer that shows both, and correct the file"
# Largest differences of two affines that say the same of one space: of voxel sizes, as a fraction,
# and of corners, in voxels.
_SAME_SIZE, _SAME_PLACE = 0.01, 0.5
# And of two spaces, as that of the scanner and one to which the head was aligned.
_ALIGNED_SIZE, _ALIGNED_DEGREES = 0.5, 45


def read_oriented(
    path: Path, place: str | Path, trust: str = "refuse"
) -> tuple[np.ndarray, Grid, str] | None:
    """Voxels in RAS+ and grid of a volume, and a note; None if it does not say how it lies.

    Parameters
    ----------
    path
        The file; of a pair, the header.
    place
        Name of the file or its folder in messages.
    trust
        Which affine is taken where the two contradict each other: ``sform``, ``qform``, or
        ``refuse``.

    Returns
    -------
    The voxels ``[x, y, z]`` in their stored type, their grid, and what is worth telling of the
    choice of an affine, which is empty as a rule.

    Raises
    ------
    DataFault
        The file is damaged or not a volume, or its affines contradict each other.
    """
    check_gzip(path)
    image = load_stored(path)
    forms = _affines(image)
    if not any(affine is not None for affine in forms.values()):
        return None
    form, note = _choose(forms, image, path, place, trust)
    # Every reader takes the sform if there is one, whatever it says.
    if form == next(iter(forms)):
        voxels, grid = read_array(path, dtype=None)
    else:
        image = nib.Nifti1Image(stored_voxels(image, path), forms[form])
        image = nib.as_closest_canonical(image)
        voxels, grid = np.asarray(image.dataobj), Grid.of(image)
    if note:
        print(f"{path.name} of {place}: {note}")
    return voxels, grid, note


def check_oriented(path: str | Path) -> None:
    """Raise if a volume does not say how it lies, or says two things, or is damaged.

    For volumes whose orientation is no setting. The voxels of an uncompressed file are not read.

    Raises
    ------
    DataFault
        As :func:`read_oriented`, or the file does not say how it lies.
    """
    path = Path(path)
    check_gzip(path)
    image = load_stored(path)
    forms = _affines(image)
    if not any(affine is not None for affine in forms.values()):
        raise DataFault(
            f"{path} does not say how it lies in space (no sform and no qform)",
            "give a volume that says so; left and right cannot be guessed",
        )
    try:
        form, _ = _choose(forms, image, path, path.parent, "refuse")
    except AvoidableFault as fault:
        raise DataFault(fault.reason, _LOOK) from None
    if form != next(iter(forms)):
        raise DataFault(f"the sform of {path} is no affine, though its code says so", _LOOK)


def check_gzip(path: str | Path) -> None:
    """Raise if a compressed file does not match its checksum; other files are not read.

    Readers of volumes stop where the voxels end, before the checksum: a damaged file would be read
    with wrong voxels.

    Raises
    ------
    DataFault
        The file is damaged or breaks off.
    """
    if Path(path).suffix.lower() != ".gz":
        return
    try:
        with gzip.open(path) as stream:
            while stream.read(_BLOCK):
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataFault(
            f"file {path} is damaged: it cannot be unpacked, or is not what its checksum says "
            f"({error})",
            "restore or export it again",
        ) from error


def load_stored(path: Path) -> nib.spatialimages.SpatialImage:
    """An image as it is stored, its voxels not read: as RAS+ it would need a valid affine.

    Raises
    ------
    DataFault
        The file is not a volume.
    """
    try:
        return nib.load(path)
    except Exception:
        read_image(path)  # raises if the file is not a volume
        raise


def stored_voxels(image: nib.spatialimages.SpatialImage, path: Path) -> np.ndarray:
    """The voxels of an image along its own three axes.

    Raises
    ------
    DataFault
        They are truncated, or have other axes.
    """
    shape = image.shape
    told = "x".join(map(str, shape))
    if len(shape) != 3 and (len(shape) != 4 or shape[3] != 1):
        raise DataFault(
            f"volume {path} has shape {told}, expected three axes",
            "give a single 3D T1-weighted volume",
        )
    if np.prod(shape, dtype=float) > _MOST_VOXELS:
        # Memory would run out, which would look like a fault of the machine.
        raise DataFault(
            f"volume {path} has {told} voxels by its header, more than any head",
            "restore or export it again",
        )
    try:
        return np.asanyarray(image.dataobj).reshape(shape[:3])
    except (EOFError, OSError, OverflowError, ValueError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk is at fault, not the file's content
        raise DataFault(
            f"the voxels of {path} cannot be read ({error})", "restore or export it again"
        ) from error


def _affines(image: nib.spatialimages.SpatialImage) -> dict[str, np.ndarray | None]:
    """The affines that a header gives, the sform first; None for one that is no affine."""
    if not isinstance(image, nib.Nifti1Pair):
        return {}
    affines: dict[str, np.ndarray | None] = {}
    for form in _FORMS:
        if image.header[f"{form}_code"] <= 0:
            continue
        try:
            affine = getattr(image.header, f"get_{form}")().astype(float)
        except (nib.spatialimages.HeaderDataError, ValueError):  # numbers that are no rotation
            affine = np.zeros((4, 4))
        affines[form] = affine if _spans(affine) else None
    return affines


def _spans(affine: np.ndarray) -> bool:
    """Whether three directions of an affine, 4x4, span a volume."""
    if not np.isfinite(affine).all():
        return False
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(abs(np.linalg.det(affine[:3, :3])) > 1e-3 * sizes.prod())


def _choose(
    forms: dict[str, np.ndarray | None],
    image: nib.spatialimages.SpatialImage,
    path: Path,
    place: str | Path,
    trust: str,
) -> tuple[str, str]:
    """Name of the affine to take, and a note; raises if two contradict each other."""
    good = [form for form, affine in forms.items() if affine is not None]
    if len(good) == 1:
        bad = next((form for form in forms if form not in good), "")
        return good[0], f"its {bad} is no affine, the {good[0]} was taken" if bad else ""
    # Two affines of code 2 may be aligned to two things: SPM moves the origin in the sform alone.
    codes = {int(image.header[f"{name}_code"]) for name in _FORMS}
    same_space = len(codes) == 1 and codes != {_ALIGNED}
    how = contradiction(*(forms[form] for form in _FORMS), image.shape[:3], same_space)
    if not how:
        return "sform", ""
    if trust == "refuse":
        raise AvoidableFault(
            f"the sform and the qform of {path.name} of {place} contradict each other: {how}",
            f"{_LOOK}, or say which one is right in all such files with {{setting}} (or qform)",
            "trust",
            "sform",
        )
    return trust, f"sform and qform contradict each other ({how}), the {trust} was trusted"


def contradiction(
    sform: np.ndarray, qform: np.ndarray, shape: tuple[int, ...], same_space: bool
) -> str:
    """In which way two affines of one volume contradict each other; empty if they do not.

    Parameters
    ----------
    sform, qform
        4x4, voxel indices to millimetres.
    shape
        Voxels along the three axes.
    same_space
        Whether both are of one space. The spaces of a scanner and of a template may be turned,
        shifted and scaled against each other, but not mirrored.
    """
    linear = [form[:3, :3] for form in (sform, qform)]
    if np.prod([np.sign(np.linalg.det(matrix)) for matrix in linear]) < 0:
        codes = [
            f"{name} {''.join(nib.aff2axcodes(form))}"
            for name, form in zip(_FORMS, (sform, qform), strict=True)
        ]
        return f"they are mirrored, left and right among them ({', '.join(codes)})"
    sizes = [np.linalg.norm(matrix, axis=0) for matrix in linear]
    limit = _SAME_SIZE if same_space else _ALIGNED_SIZE
    if max((sizes[0] / sizes[1]).max(), (sizes[1] / sizes[0]).max()) > 1 + limit:
        told = [" x ".join(f"{size:.4g}" for size in each) for each in sizes]
        return f"voxels of {told[0]} mm by the sform, {told[1]} mm by the qform"
    if same_space:
        corners = np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(shape) - 1)
        places = [nib.affines.apply_affine(form, corners) for form in (sform, qform)]
        apart = np.linalg.norm(places[0] - places[1], axis=1).max()
        told = f"the volume's corners lie up to {apart:.1f} mm apart"
        return told if apart > _SAME_PLACE * sizes[0].min() else ""
    turn = _degrees(*(matrix / size for matrix, size in zip(linear, sizes, strict=True)))
    return f"turned by {turn:.0f} degrees" if turn > _ALIGNED_DEGREES else ""


def _degrees(one: np.ndarray, other: np.ndarray) -> float:
    """The angle of the rotation from one matrix of directions to another, 3x3."""
    left, _, right = np.linalg.svd(one @ np.linalg.inv(other))  # the nearest rotation
    cosine = (np.trace(left @ right) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
