from dataclasses import asdict

import numpy as np
import pytest

from voxplain.cohort.plan import plan_cohort
from voxplain.cohort.scanner import ScannerSettings
from voxplain.cohort.simulate import simulate_scan
from voxplain.cohort.trees import find_images
from voxplain.cohort.twins import healthy_twin, image_of_twin, twin_image


@pytest.fixture(scope="module")
def plan():
    return plan_cohort(
        seed=1,
        groups={
            "AD": {"patients": 999, "severity": [0.7, 1.0]},
            "CN": {"patients": 3, "severity": [0, 0]},
        },
        visits={"sc": 1.0, "m120": 1.0},
        age=[60, 85],
        ageing_per_decade=0.02,
        progression_per_year=0.1,
        heads=["packaged"],
    )


def test_a_twin_differs_from_its_scan_in_its_name_and_its_disease_only(plan):
    for scan in plan[:6]:
        twin = healthy_twin(scan)
        unlike = {key for key, value in asdict(twin).items() if value != asdict(scan)[key]}
        assert unlike == ({"image", "severity"} if scan.severity else {"image"})
        assert twin.severity == 0
        assert (twin.anatomy_seed, twin.scan_seed) == (scan.anatomy_seed, scan.scan_seed)


def test_a_twins_name_is_unique_and_gives_its_scan(plan):
    images = {scan.image for scan in plan}
    twins = {twin_image(image) for image in images}
    assert len(twins) == len(images)
    assert not twins & images
    assert {image_of_twin(twin) for twin in twins} == images
    assert twin_image("I1001000") == "I91001000"
    for image in images:
        assert image[1:].isdigit() and twin_image(image)[1:].isdigit(), "of the archive's form"
        with pytest.raises(KeyError):
            image_of_twin(image)


def test_a_twins_folder_is_beside_its_scans(plan):
    scan, twin = plan[0], healthy_twin(plan[0])
    assert scan.folder.rpartition("/")[0] == twin.folder.rpartition("/")[0]
    assert twin.folder.endswith("/I91001000")


def test_folders_of_twins_in_an_archive_are_recognised(plan, tmp_path):
    for planned in (plan[0], healthy_twin(plan[0])):
        (tmp_path / planned.folder).mkdir(parents=True)
    assert find_images([tmp_path]).images.keys() == {"I1001000", "I91001000"}


@pytest.mark.slow
def test_twins_differ_only_near_the_lost_tissue(coarse_head):
    """Noise, pose, intensity field and anatomy are equal."""
    scanner = ScannerSettings(
        deformation_mm=2,
        rotation_deg=5,
        translation_mm=4,
        bias=0.1,
        noise=0.05,
        gain=0.1,
        voxel_size_mm=(4.0, 4.0),
    )
    seeds = {"ageing": 0.02, "anatomy_seed": 3, "scan_seed": 4, "scanner": scanner}
    # The left hippocampus and its neighbour.
    diseased = simulate_scan(coarse_head, {37: 0.3, 39: 0.3}, **seeds)
    healthy = simulate_scan(coarse_head, {}, **seeds)
    assert diseased.grid == healthy.grid
    assert healthy.truth.max() == 0
    difference = np.abs(diseased.volume.astype(float) - healthy.volume)
    inside = diseased.truth > 0.1
    assert inside.sum() > 20
    assert difference[inside].mean() > 20 * difference[~inside].mean()
    # Different noise would show everywhere; its standard deviation is 30 of 600.
    assert np.percentile(difference, 90) <= 1
