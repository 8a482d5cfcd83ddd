"""The size of compressed frames by their own account, on the files that come with pydicom."""

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames

from voxplain.cohort.dicom_streams import FrameSize, size_of_frame


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MR_small_RLE.dcm", FrameSize((64 * 64,), 16)),
        ("MR_small_jp2klossless.dcm", FrameSize((64, 64), 16)),
        ("MR_small_jpeg_ls_lossless.dcm", FrameSize((64, 64), 16)),
        ("JPEG-lossy.dcm", FrameSize((1024, 256), 12)),
        ("JPGExtended.dcm", FrameSize((1024, 256), 12)),
        ("JPEG2000.dcm", FrameSize((1024, 256), 16)),
        ("SC_rgb_rle_32bit.dcm", FrameSize((100 * 100,), 32)),
        ("SC_rgb_small_odd_jpeg.dcm", FrameSize((3, 3), 8)),
        ("693_J2KI.dcm", FrameSize((512, 512), 16)),
    ],
)
def test_a_frame_tells_its_size(name, expected):
    header = pydicom.dcmread(get_testdata_file(name, download=False))
    frame = next(generate_frames(header.PixelData, number_of_frames=1))
    size = size_of_frame(frame, header.file_meta.TransferSyntaxUID, header.SamplesPerPixel)
    assert size == expected
    assert size.fits(header.Rows, header.Columns, header.BitsAllocated, header.BitsStored)


@pytest.mark.parametrize(
    "frame", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xc3\0\x0b"]
)
@pytest.mark.parametrize("syntax", [pydicom.uid.RLELossless, pydicom.uid.JPEGLosslessSV1])
def test_a_frame_that_breaks_off_tells_nothing(frame, syntax):
    assert size_of_frame(frame, syntax, 1) is None


@pytest.mark.parametrize(
    ("allocated", "stored", "fits"),
    [(16, 12, True), (16, 16, True), (16, 0, True), (8, 8, False), (32, 12, False)],
)
def test_bits_are_held_in_whole_bytes(allocated, stored, fits):
    assert FrameSize((3, 4), 12).fits(3, 4, allocated, stored) == fits
    assert not FrameSize((3, 4), 12).fits(4, 3, allocated, stored)


def test_8_bits_may_be_held_in_16():
    assert FrameSize((3, 4), 8).fits(3, 4, 16, 8)
    assert not FrameSize((3, 4), 16).fits(3, 4, 8, 8)
    assert FrameSize((12,), 8).fits(3, 4, 8, 8)
    assert FrameSize((16,), 8).fits(3, 5, 8, 8)  # an odd number is filled up
    assert not FrameSize((12,), 8).fits(3, 5, 8, 8)
