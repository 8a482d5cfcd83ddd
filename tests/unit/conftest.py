"""Shared heads, scans and files; those that take more than a second are made once a session."""

import os
import pickle
import signal
import warnings

# Before any test imports ants: sums over several ITK threads are not reproducible.
os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import settings
from scipy import ndimage

from shared import made_once
from voxplain.anatomy.template import make_template
from voxplain.atlas import Atlas, read_aal
from voxplain.cohort.dicom import SeriesHeader, write_series
from voxplain.cohort.heads import Head, build_packaged_head
from voxplain.cohort.scanner import ScannerSettings
from voxplain.cohort.simulate import simulate_scan
from voxplain.volumes import (
    Grid,
    axis_aligned_grid,
    centres_mm,
    resample,
    smooth_for,
    write_array,
)

# The same examples in every run, however slow the machine is.
settings.register_profile("unit", deadline=None, derandomize=True, database=None, max_examples=25)
settings.load_profile("unit")

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def aal() -> Atlas:
    return read_aal()


@pytest.fixture(scope="session")
def packaged_head(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Head:
    """The head around the packaged brain at 1 mm; it takes ten seconds."""
    with made_once(tmp_path_factory, worker_id, "head") as (folder, empty):
        path = folder / "head.pickle"
        if empty:
            folder.mkdir()
            path.write_bytes(pickle.dumps(build_packaged_head()))
        return pickle.loads(path.read_bytes())


def coarsened(head: Head, size_mm: float) -> Head:
    fine, grid = head.grid, head.grid.coarsened(size_mm)
    inside = resample(smooth_for(head.brain, fine, grid), fine, grid) > 0.5
    areas = resample(head.areas, fine, grid, order=0)
    return Head(
        t1=resample(smooth_for(head.t1, fine, grid), fine, grid),
        brain=inside,
        areas=np.where(inside, areas, 0).astype(np.uint8),
        grid=grid,
    )


@pytest.fixture(scope="session")
def head(packaged_head: Head) -> Head:
    """The packaged head at 2.5 mm."""
    return coarsened(packaged_head, 2.5)


@pytest.fixture(scope="session")
def coarse_head(head: Head) -> Head:
    """The packaged head at 4 mm, for tests that need no detail."""
    return coarsened(head, 4)


@pytest.fixture(scope="session")
def quiet() -> ScannerSettings:
    """A scanner that changes nothing of the head: no pose, no deformation, no field, no noise."""
    return ScannerSettings(
        deformation_mm=0,
        rotation_deg=0,
        translation_mm=0,
        bias=0,
        noise=0,
        gain=0,
        voxel_size_mm=(2.5, 2.5),
    )


@pytest.fixture(scope="session")
def scan(head: Head, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A simulated scan of a healthy person with a known intensity field, and its true brain mask.

    ``clean`` is the scan without the field, ``volume`` with it. The mask is a scan, with the same
    seeds, of a head that is as bright as its brain mask.
    """
    scanner = {
        "deformation_mm": 3.0,
        "rotation_deg": 8,
        "translation_mm": 6,
        "bias": 0,
        "gain": 0,
        "voxel_size_mm": (1.9, 1.9),
    }
    seeds = {"losses": {}, "ageing": 0.0, "anatomy_seed": 70, "scan_seed": 80}
    simulated = simulate_scan(head, **seeds, scanner=ScannerSettings(noise=0.03, **scanner))
    brain = head.brain
    white = Head(brain.astype(np.float32), brain, head.areas, head.grid)
    masked = simulate_scan(white, **seeds, scanner=ScannerSettings(noise=0, **scanner))
    mask = masked.volume > masked.volume.max() / 2

    x, y, z = centres_mm(simulated.grid) / 100
    field = np.exp(0.25 * x + 0.2 * y * z - 0.3 * z**2 + 0.1 * np.sin(3 * y)).astype(np.float32)
    clean = simulated.volume.astype(np.float32)
    folder = tmp_path_factory.mktemp("scan")
    write_array(folder / "head.nii.gz", clean * field, simulated.grid)
    write_array(folder / "mask.nii.gz", mask, simulated.grid, np.uint8)
    write_array(folder / "brain.nii.gz", np.where(mask, clean, 0), simulated.grid)
    return SimpleNamespace(
        volume=clean * field,
        clean=clean,
        field=field,
        mask=mask,
        grid=simulated.grid,
        head_path=folder / "head.nii.gz",
        mask_path=folder / "mask.nii.gz",
        brain_path=folder / "brain.nii.gz",
    )


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The packaged template at 4 mm, in memory and on disk."""
    brain, mask, grid = make_template("packaged", 4)
    path = tmp_path_factory.mktemp("template") / "brain.nii.gz"
    write_array(path, brain, grid)
    return SimpleNamespace(brain=brain, mask=mask, grid=grid, path=path)


@pytest.fixture(scope="session")
def series_header() -> SeriesHeader:
    return SeriesHeader(
        subject="011_S_0003",
        sex="F",
        age=71.5,
        acquired="2005-09-12T10:11:12",
        image="I32237",
        description="MP-RAGE",
    )


@pytest.fixture(scope="session")
def phantom() -> tuple[np.ndarray, Grid]:
    """A small head-sized volume that differs under every flip and every swap of axes."""
    grid = axis_aligned_grid((24, 30, 26), (4.8, 4.0, 4.0), (-50.25, -61.5, -40.125))
    noise = np.random.default_rng(0).normal(size=grid.shape)
    smooth = ndimage.gaussian_filter(noise, 2)
    volume = np.interp(smooth, (smooth.min(), smooth.max()), (0, 1500))
    volume[20:23, 24:28, 21:25] = 4000  # right, front, top
    return np.rint(volume).astype(np.uint16), grid


@pytest.fixture
def series(
    tmp_path: Path, phantom: tuple[np.ndarray, Grid], series_header: SeriesHeader
) -> SimpleNamespace:
    """The phantom as a DICOM series in its own folder."""
    folder = tmp_path / series_header.image
    files = write_series(folder, *phantom, series_header)
    return SimpleNamespace(folder=folder, files=files, volume=phantom[0], grid=phantom[1])


def pixels(figure):
    """Red, green and blue of a drawn figure, 0 to 255."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


@pytest.fixture(scope="session")
def drawn():
    """A function that draws at screen size without warnings; it returns pixels and figure."""

    def draw(function, *args):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", DeprecationWarning)  # seaborn's calls of matplotlib
            figure = function(*args)
            figure.set_dpi(140)
            picture = pixels(figure)
        assert min(picture.shape[:2]) > 200
        assert np.unique(picture[::3, ::3] @ (1, 256, 256**2)).size > 20
        for border in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
            assert (border == picture[0, 0]).all()  # nothing is cut
        return picture, figure

    return draw


@pytest.fixture
def in_terminal():
    """Child processes take SIGHUP as in a terminal, though the tests may run under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
