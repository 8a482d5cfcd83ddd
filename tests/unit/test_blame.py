import errno
import subprocess
import zlib

import pytest

from voxplain.cohort.blame import fault_of_data
from voxplain.faults import DataFault, SetupFault, printable, shortened

REMEDY = "look at the scan"


def raised(error, cause=None):
    try:
        raise error from cause
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (IndexError("index -1 is out of bounds"), "IndexError: index -1 is out of bounds"),
        (KeyError("Rows"), "KeyError: 'Rows'"),
        (RecursionError("maximum depth"), "RecursionError: maximum depth"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "no"), "UnicodeEncodeError: 'utf-8' codec"),
        (zlib.error("invalid block"), "error: invalid block"),
        (OSError("Expected 40 bytes, got 20"), "OSError: Expected 40 bytes, got 20"),
        (OSError(errno.ENAMETOOLONG, "File name too long"), "OSError: [Errno 36] File name"),
        (AssertionError(), "AssertionError: "),
    ],
)
def test_whatever_a_scans_data_raises_is_its_fault_and_keeps_its_type(error, reason):
    fault = fault_of_data(error, REMEDY)
    assert f"{fault.reason} ".startswith(reason)
    assert fault.remedy == REMEDY


def test_a_fault_of_the_data_stays_as_it_is():
    fault = DataFault("a.dcm is truncated: no space left on its disc, it says", "again")
    assert fault_of_data(fault, REMEDY) is fault


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EIO, "Input/output error"),
        PermissionError(errno.EACCES, "Permission denied"),
        ModuleNotFoundError("No module named 'ants'"),
        ChildProcessError("dcm2niix was ended by signal 9"),
        subprocess.CalledProcessError(137, "bet"),
        SetupFault("FSL is not installed"),
        RuntimeError("itk::ERROR: Failed to allocate memory for image."),
        RuntimeError("std::bad_alloc"),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA"),
        raised(ValueError("cannot read"), MemoryError()),
        raised(DataFault("its pixels cannot be read", "again"), MemoryError()),
        raised(DataFault("cannot be unpacked", "again"), OSError(errno.ENOSPC, "No space left")),
    ],
)
def test_the_machine_and_the_set_up_are_no_fault_of_a_scan(error):
    assert fault_of_data(error, REMEDY) is None


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Größe\tin\nmm", "Größe\tin\nmm"),
        (b"M\xfcller.dcm".decode("utf-8", "surrogateescape"), "M\\xfcller.dcm"),
        ("half \ud800", "half \\ud800"),
        ("\x1b[31m\0", "\\x1b[31m\\x00"),
    ],
)
def test_what_no_terminal_can_hold_is_escaped(text, expected):
    assert printable(text) == expected
    assert printable(text).encode("utf-8")


def test_faults_can_be_written_whatever_they_name():
    name = b"\xff.dcm".decode("utf-8", "surrogateescape")
    fault = DataFault(f"file {name}\nis truncated", f"delete {name}")
    assert str(fault) == "file \\xff.dcm is truncated; delete \\xff.dcm"
    assert str(SetupFault(f"table {name}\nand more")) == "table \\xff.dcm\nand more"


def test_faults_do_not_echo_endless_values():
    fault = DataFault(f"begins {'x' * 10_000} ends", "remedy")
    assert len(fault.reason) <= 2000
    assert fault.reason.startswith("begins")
    assert fault.reason.endswith("ends")
    lines = str(SetupFault(f"{'x' * 10_000}\nsecond")).split("\n")
    assert [len(line) <= 2000 for line in lines] == [True, True]


@pytest.mark.parametrize("longest", [10, 11, 12, 100, 101])
def test_a_text_is_shortened_in_its_middle(longest):
    assert shortened("a" * longest, longest) == "a" * longest
    cut = shortened("b" + "a" * 500 + "e", longest)
    assert len(cut) <= longest
    assert (cut[0], cut[-1]) == ("b", "e")
