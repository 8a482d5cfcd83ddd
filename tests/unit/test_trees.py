import os
import time
import zipfile

import pytest

from voxplain.cohort.tables import read_table
from voxplain.cohort.trees import find_images, image_in_name, is_volume, split_zip
from voxplain.faults import SetupFault


def images_of(*roots):
    return find_images(roots).images


def image_folder(root, leaf, *files, subject="011_S_0003", description="MPR", moment="2005-09-01"):
    folder = root / subject / description / moment / leaf
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).touch()
    return str(folder)


def test_a_tree_is_listed_by_the_image_id_of_its_last_folders(tmp_path):
    first = image_folder(tmp_path, "I32237", "a.dcm")
    second = image_folder(tmp_path, "I59692", "b.dcm", moment="2006-09-12_10_11_12.0")
    third = image_folder(tmp_path, "31585", "c.dcm", subject="011_S_0005")
    assert images_of(tmp_path) == {
        "I32237": [first],
        "I59692": [second],
        "I31585": [third],
    }


@pytest.mark.parametrize("ending", ["dcm", "nii", "nii.gz"])
def test_a_folder_named_by_series_is_known_by_the_image_id_in_its_file_names(tmp_path, ending):
    names = [f"ADNI_011_S_0003_MR_MPR_Br_2007_{n}_S13893_I14782.{ending}" for n in (10, 9, 1)]
    folder = image_folder(tmp_path, "S13893", *names)
    assert images_of(tmp_path) == {"I14782": [folder]}


def test_what_is_no_image_folder_is_passed_over(tmp_path):
    folder = image_folder(tmp_path, "I1", "a.dcm")
    image_folder(tmp_path, "notes", "a.dcm", description="other")
    image_folder(tmp_path, "S5", description="empty series")
    image_folder(tmp_path, "S6", "readme.txt", description="series without image id")
    (tmp_path / "LICENCE.txt").touch()
    (tmp_path / "011_S_0003" / "list.csv").touch()
    assert images_of(tmp_path) == {"I1": [folder]}


def test_a_link_to_a_folder_of_another_disk_is_followed(tmp_path):
    image_folder(tmp_path / "disk", "I1", "a.dcm")
    (tmp_path / "ADNI").mkdir()
    (tmp_path / "ADNI" / "011_S_0003").symlink_to(tmp_path / "disk" / "011_S_0003")
    assert list(images_of(tmp_path / "ADNI")) == ["I1"]


def test_a_missing_tree_is_named_with_its_parameter(tmp_path):
    with pytest.raises(SetupFault, match=r"roots has .*nowhere, which does not exist"):
        find_images([tmp_path / "nowhere"])


def test_a_hidden_file_does_not_hide_the_image_id_of_a_series_folder(tmp_path):
    leaf = tmp_path / "011_S_0003" / "MP-RAGE" / "2005-09-12" / "S13893"
    leaf.mkdir(parents=True)
    (leaf / ".DS_Store").touch()
    (leaf / "ADNI_011_S_0003_MR_MP-RAGE_br_raw_1_S13893_I14782.dcm").touch()
    assert list(images_of(tmp_path)) == ["I14782"]


def test_a_tree_of_any_depth_is_listed(tmp_path):
    deep = tmp_path / "disk" / "ADNI" / "011_S_0003" / "MP-RAGE" / "2005-09-12" / "x" / "I1"
    flat = tmp_path / "I2"
    for folder in (deep, flat):
        folder.mkdir(parents=True)
    assert images_of(tmp_path) == {"I1": [str(deep)], "I2": [str(flat)]}


def test_a_link_to_a_folder_above_ends(tmp_path):
    folder = image_folder(tmp_path, "I1", "a.dcm")
    (tmp_path / "011_S_0003" / "again").symlink_to(tmp_path, target_is_directory=True)
    assert folder in images_of(tmp_path)["I1"]


@pytest.mark.parametrize("name", ["a_I7.nii", "a_I7.nii.gz", "a_I7.NII", "a_S3_I7.hdr"])
def test_a_volume_that_bears_its_id_is_an_image_wherever_it_lies(tmp_path, name):
    place = tmp_path / "old download"
    place.mkdir()
    for file in (name, "a_S3_I7.img", "list_I9.csv", "page_I10.txt"):
        (place / file).touch()
    assert images_of(tmp_path) == {"I7": [str(place / name)]}


def test_slices_of_two_images_in_one_folder_are_two_images(tmp_path):
    names = [f"ADNI_011_S_0003_{n}_S13893_I{image}.dcm" for n in (1, 2) for image in (14, 15)]
    folder = image_folder(tmp_path, "both", *names)
    assert images_of(tmp_path) == {"I14": [folder], "I15": [folder]}


@pytest.mark.parametrize(("inside", "images"), [((), {"I2005": 1}), (("I3",), {"I3": 1})])
def test_a_folder_of_digits_is_an_image_unless_folders_lie_in_it(tmp_path, inside, images):
    (tmp_path / "2005").mkdir()
    for name in inside:
        (tmp_path / "2005" / name).mkdir()
    assert {image: len(places) for image, places in images_of(tmp_path).items()} == images


def test_metadata_is_known_by_its_image(tmp_path):
    image_folder(tmp_path, "I45108", "a.dcm")
    xml = tmp_path / "ADNI_011_S_0003_MPR_S13408_I45108.xml"
    xml.touch()
    tree = find_images([tmp_path])
    assert tree.metadata == {"I45108": str(xml)}
    assert list(tree.images) == ["I45108"]


def packed(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return path


def test_a_zip_file_is_looked_into(tmp_path):
    inner = "ADNI/011_S_0003/MPR/2005-09-12_10_11_12.0"
    path = packed(
        tmp_path / "one.zip",
        f"{inner}/I1/a_1_S2_I1.dcm",
        f"{inner}/I1/a_2_S2_I1.dcm",
        f"{inner}/S5/b_S5_I4.nii",
        f"{inner}/17/c.dcm",
        "flat_I6.nii.gz",
        "ADNI/a_S2_I1.xml",
        "__MACOSX/ADNI/._b_I9.nii",
        "ADNI/.hidden_I8.nii",
    )
    tree = find_images([path])
    assert tree.images == {
        "I1": [f"{path}/{inner}/I1"],
        "I4": [f"{path}/{inner}/S5"],
        "I17": [f"{path}/{inner}/17"],
        "I6": [f"{path}/flat_I6.nii.gz"],
    }
    assert tree.metadata == {"I1": f"{path}/ADNI/a_S2_I1.xml"}


def test_zip_files_in_a_folder_are_looked_into_and_what_is_unpacked_counts_once(tmp_path):
    folder = image_folder(tmp_path / "ADNI", "I1", "a.dcm")
    packed(
        tmp_path / "ADNI.zip",
        "ADNI/011_S_0003/MPR/2005-09-01/I1/a.dcm",
        "ADNI/011_S_0003/MPR/2005-09-01/I2/a.dcm",
    )
    inside = f"{tmp_path}/ADNI.zip/ADNI/011_S_0003/MPR/2005-09-01/I2"
    assert images_of(tmp_path) == {"I1": [folder], "I2": [inside]}


def test_one_image_at_two_places_keeps_both(tmp_path):
    first = image_folder(tmp_path / "a", "I1", "a.dcm")
    second = image_folder(tmp_path / "b", "I1", "a.dcm", moment="2006-01-01")
    assert images_of(tmp_path / "a", tmp_path / "b") == {"I1": [first, second]}


def test_a_broken_zip_file_is_named(tmp_path):
    path = tmp_path / "one.zip"
    path.write_bytes(b"PK\3\4 and then nothing")
    with pytest.raises(
        SetupFault, match=r"zip file .*one\.zip cannot be read .* download it again"
    ):
        find_images([path])


def test_a_root_that_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "scans.csv"
    path.touch()
    with pytest.raises(SetupFault, match="neither a folder nor a zip file"):
        find_images([path])


def test_a_tree_without_images_is_refused_with_what_is_expected(tmp_path):
    (tmp_path / "ADNI" / "011_S_0003").mkdir(parents=True)
    with pytest.raises(SetupFault, match="<PTID>/<description>/<date_time>/<image id>"):
        find_images([tmp_path])


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("ADNI_x_br_raw_1_S13893_I14782.dcm", "I14782"),
        ("x_I1.nii.gz", "I1"),
        ("x_D5.dcm", "I5"),
        ("x_I1", ""),
        ("I1.dcm", ""),
        ("x_I1_2.dcm", ""),
    ],
)
def test_the_id_in_a_files_name(name, image):
    assert image_in_name(name) == image


def test_which_names_are_volumes():
    assert [is_volume(n) for n in ("a.nii", "a.nii.gz", "A.HDR", "a.img", "a.dcm", "a.gz")] == [
        *(True, True, True),
        *(False, False, False),
    ]


def test_a_place_within_a_zip_file_is_told_from_a_folder_of_such_a_name(tmp_path):
    path = packed(tmp_path / "one.zip", "a/I1/x.dcm")
    assert split_zip(f"{path}/a/I1") == (str(path), "a/I1")
    assert split_zip(path) == (str(path), "")
    folder = tmp_path / "two.zip" / "I1"
    folder.mkdir(parents=True)
    assert split_zip(folder) == (str(folder), "")
    assert os.path.isdir(folder)


def test_a_folder_of_digits_is_no_image_where_its_files_bear_ids(tmp_path):
    folder = tmp_path / "P17" / "20050912"
    folder.mkdir(parents=True)
    (folder / "ADNI_1_S13_I14782.dcm").touch()
    path = packed(tmp_path / "one.zip", "2006/a_1_S2_I7.dcm", "2007/b.dcm")
    assert images_of(tmp_path) == {
        "I14782": [str(folder)],
        "I7": [f"{path}/2006"],
        "I2007": [f"{path}/2007"],
    }


def test_a_folder_met_twice_through_links_counts_once(tmp_path):
    folder = image_folder(tmp_path / "ADNI_2024", "I1", "a.dcm")
    (tmp_path / "ADNI").symlink_to(tmp_path / "ADNI_2024")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (found,) = images_of(tmp_path)["I1"]
    assert os.path.realpath(found) == folder


@pytest.mark.parametrize("name", ["I1/a.dcm", "x_I1.nii.gz"])
def test_what_is_unpacked_beside_its_zip_file_counts_once_at_any_depth(tmp_path, name):
    packed(tmp_path / "data.zip", name)
    (tmp_path / "data" / name).parent.mkdir(parents=True)
    (tmp_path / "data" / name).touch()
    assert len(images_of(tmp_path)["I1"]) == 1


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    image_folder(tmp_path, "I1", "a.dcm")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("MPR"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SetupFault, match=r"MPR cannot be listed \(Permission denied\)"):
        find_images([tmp_path])


def test_a_link_to_what_was_not_downloaded_is_no_image(tmp_path):
    (tmp_path / "a_I1.nii").touch()
    (tmp_path / "b_I2.nii").symlink_to(tmp_path / ".git/annex/nothing")
    (tmp_path / "c_I3.nii").symlink_to(tmp_path / "a_I1.nii")
    assert list(images_of(tmp_path)) == ["I1", "I3"]


# --- hostile trees --------------------------------------------------------------------------------


def test_pipes_and_devices_are_no_images_and_are_not_opened(tmp_path):
    folder = image_folder(tmp_path, "I1", "a.dcm")
    os.mkfifo(tmp_path / "x.zip")
    os.mkfifo(tmp_path / "a_I2.nii")
    (tmp_path / "b.zip").symlink_to("/dev/zero")
    (tmp_path / "b_I3.nii").symlink_to("/dev/zero")
    assert images_of(tmp_path) == {"I1": [folder]}


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_root_or_a_table_that_is_a_pipe_or_a_device_is_refused(tmp_path, make):
    for name, read in (("x.zip", lambda path: find_images([path])), ("x.tsv", read_table)):
        make(tmp_path / name)
        with pytest.raises(SetupFault, match=name):
            read(tmp_path / name)


def test_links_to_folders_above_do_not_multiply_folders(tmp_path, monkeypatch):
    """Four links to the top in each of four folders below each other: 4 ** 12 walks of old."""
    folder = tmp_path
    for level in range(4):
        folder = folder / f"level{level}"
        folder.mkdir()
        for number in range(4):
            (folder / f"up{number}").symlink_to(tmp_path)
    (folder / "I1").mkdir()
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    assert list(images_of(tmp_path)) == ["I1"]
    assert len(listed) == 5


def test_a_folder_deeper_than_any_archive_is_listed(tmp_path):
    deep = tmp_path.joinpath(*["x"] * 300)
    deep.mkdir(parents=True)
    (deep / "a_I1.nii").touch()
    assert list(images_of(tmp_path)) == ["I1"]


def test_a_root_without_end_is_refused(tmp_path, monkeypatch):
    image_folder(tmp_path, "I1", "a.dcm")
    monkeypatch.setattr("voxplain.cohort.trees._MOST_FOLDERS", 2)
    with pytest.raises(SetupFault, match="roots has more than 2 folders, such as"):
        find_images([tmp_path])


def test_an_image_with_thousands_of_places_is_listed_in_no_time(tmp_path):
    names = [f"{number}/MPR/2005/I1/a.dcm" for number in range(1500)]
    path = packed(tmp_path / "one.zip", *names)
    packed(tmp_path / "two.zip", *names)
    begun = time.monotonic()
    assert len(images_of(tmp_path)["I1"]) == 1500
    assert time.monotonic() - begun < 5
    assert images_of(path)["I1"][0] == f"{path}/0/MPR/2005/I1"


def test_a_zip_file_with_several_names_counts_once(tmp_path):
    path = packed(tmp_path / "a.zip", "I1/a.dcm")
    (tmp_path / "b.zip").symlink_to(path)
    assert images_of(tmp_path) == {"I1": [f"{path}/I1"]}


@pytest.mark.parametrize("name", ["I12\n", "I１２", "ı12", "I١٢"])
def test_a_folder_that_only_looks_like_an_image_is_none(tmp_path, name):
    folder = image_folder(tmp_path, "I1", "a.dcm")
    image_folder(tmp_path, name, "a.dcm", subject="other")
    assert images_of(tmp_path) == {"I1": [folder]}
