"""Bad inputs by the hundred: each must come out as a clean error or as a correct result.

    PYTHONPATH=tests:scripts python tests/fuzz.py --inputs 400

makes so many of each kind from a seed, and prints what became of them. A kind's function gives the
outcome, or raises what no user should see.
"""

import argparse
import copy
import gzip
import json
import random
import signal
import struct
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
from pydicom.datadict import keyword_for_tag

from voxplain.anatomy.intensity import is_already_corrected
from voxplain.cohort.blame import fault_of_data
from voxplain.cohort.dicom import SeriesHeader, write_series
from voxplain.cohort.files import open_source
from voxplain.cohort.scans import list_scans
from voxplain.cohort.series import Conversion, read_scan
from voxplain.cohort.tables import read_table
from voxplain.faults import DataFault, SetupFault
from voxplain.volumes import axis_aligned_grid, write_array

LONGEST_S = 60
ODD_TEXT = ["", " ", "\0", "äöü", "1e999", "nan", "-1", "../../etc/passwd", "{image}", "a" * 5000]
ODD = [None, True, 0, -1, 10**30, 1e-300, float("nan"), float("inf"), [], {}, [[]], {"a": {}}]
ODD += [2**64, ["AD"], [1, 0], {"AD": 1}]


# --- DICOM ----------------------------------------------------------------------------------------

GRID = axis_aligned_grid((24, 30, 26), (4.8, 4.0, 4.0), (-50.25, -61.5, -40.125))
VOLUME = np.random.default_rng(0).integers(0, 1500, GRID.shape).astype(np.uint16)
HEADER = SeriesHeader("011_S_0003", "F", 71, "2005-09-12T10:11:12", "I1", "MP-RAGE")


def odd_values(draw, kind):
    """A value that a header's field of a kind should not have, or seldom has."""
    if kind in ("US", "SS", "UL", "SL"):
        return draw.choice([0, 1, 2, 7, 255, 65535])
    if kind in ("DS", "IS"):
        return draw.choice(
            ["", "0", "-1", "1e30", "abc", "1\\2\\3", "nan", ["1", "2"], "99999999999"]
        )
    if kind in ("FD", "FL"):
        return draw.choice([0.0, -1.0, 1e30, float("nan")])
    if kind == "UI":
        return draw.choice(["", "1.2.3", "not.an.uid", "1." * 40])
    return draw.choice(ODD_TEXT)


def spoil_header(draw, slice_):
    """Take away or replace one field, in the ways of bad exporters."""
    elements = [e for e in slice_ if e.tag != 0x7FE00010] or list(slice_)
    element = draw.choice(elements)
    if draw.random() < 0.3:
        del slice_[element.tag]
        return f"without {element.keyword}"
    value = odd_values(draw, element.VR)
    try:
        slice_[element.tag].value = value
    except Exception:  # pydicom itself refuses: a field of another kind
        slice_[element.tag] = pydicom.DataElement(element.tag, "LO", str(value)[:60])
    return f"{keyword_for_tag(element.tag)} is {str(value)[:20]!r}"


def spoil_bytes(draw, content):
    """Flip, cut, or repeat bytes."""
    content = bytearray(content)
    place = draw.randrange(len(content))
    how = draw.choice(["flip", "cut", "insert", "header", "zero"])
    if how == "flip":
        content[place] ^= 1 << draw.randrange(8)
    elif how == "cut":
        del content[place:]
    elif how == "insert":
        content[place:place] = bytes(draw.randrange(256) for _ in range(draw.randrange(1, 64)))
    elif how == "zero":
        content[place : place + 200] = bytes(len(content[place : place + 200]))
    else:  # in the fields, which are a small part of a large file
        for _ in range(draw.randrange(1, 20)):
            content[draw.randrange(132, min(1200, len(content)))] = draw.randrange(256)
    return bytes(content), how


def try_dicom(draw, scratch):
    folder = scratch / "series"
    write_series(folder, VOLUME, GRID, HEADER)
    paths = sorted(folder.iterdir())
    if draw.random() < 0.5:
        victim = draw.choice(paths)
        content, told = spoil_bytes(draw, victim.read_bytes())
        victim.write_bytes(content)
    else:
        state, told = draw.getrandbits(32), ""
        for path in paths if draw.random() < 0.5 else [draw.choice(paths)]:
            slice_ = pydicom.dcmread(path)
            told = spoil_header(random.Random(state), slice_)
            try:
                slice_.save_as(path)
            except Exception:  # what cannot be written cannot be met
                continue
    before = sorted(path.name for path in scratch.rglob("*"))
    try:
        with open_source(folder) as files:
            series = read_scan(files, folder, Conversion(max_slice_mm=7), "011_S_0003", "MP-RAGE")
    except DataFault as fault:
        clean(fault.reason, fault.remedy)
        return "refused", told
    finally:
        assert before == sorted(path.name for path in scratch.rglob("*")), "written beside it"
    assert series.voxels.ndim == 3
    assert np.isfinite(series.voxels).all()
    assert np.isfinite(series.grid.matrix).all()
    if series.voxels.shape != VOLUME.shape or not np.array_equal(series.voxels, VOLUME):
        return "other voxels", told
    return ("as it was" if series.grid.matches(GRID, 1e-2) else "another place"), told


# --- volumes --------------------------------------------------------------------------------------

SIDECAR = {"SeriesDescription": "MPR; N3", "ImageType": ["ORIGINAL", "PRIMARY"], "EchoTime": 0.004}


def try_volume(draw, scratch):
    """A NIfTI file with a spoilt header, beside a sidecar with a spoilt value."""
    path = scratch / draw.choice(["a_I1.nii", "a_I1.nii.gz"])
    write_array(path, VOLUME, GRID, np.int16)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as stream:
        content = bytearray(stream.read())
    how = draw.choice(["header", "dims", "cut", "sidecar"])
    if how == "header":
        for _ in range(draw.randrange(1, 8)):
            content[draw.randrange(352)] = draw.randrange(256)
    elif how == "dims":
        dims = [draw.choice([-1, 0, 1, 2, 24, 30, 26, 1000, 32767]) for _ in range(4)]
        content[40:48] = struct.pack("<4h", draw.choice([0, 1, 2, 3, 3, 3, 4, 7, 200]), *dims[:3])
    elif how == "cut":
        del content[draw.randrange(len(content)) :]
    with opened(path, "wb") as stream:
        stream.write(content)
    fields = {**SIDECAR, draw.choice(list(SIDECAR)): draw.choice([*ODD, *ODD_TEXT, "\ud800"])}
    (scratch / "a_I1.json").write_text(json.dumps(fields))
    try:
        with open_source(scratch) as files:
            series = read_scan(files, scratch, Conversion(unoriented="RAS"))
    except Exception as error:
        fault = fault_of_data(error, "look")
        assert fault is not None, f"{how}: the machine is blamed for {error!r}"
        assert isinstance(error, DataFault), f"{how}: {error!r} is nobody's words"
        clean(fault.reason, fault.remedy)
        return "refused", how
    json.dumps(series.sidecar, ensure_ascii=False, allow_nan=False).encode()
    is_already_corrected(
        [series.sidecar.get("SeriesDescription", ""), *series.sidecar.get("ImageType", [])]
    )
    assert np.isfinite(series.voxels).all() and series.voxels.max() > 0
    return ("as it was" if np.array_equal(series.voxels, VOLUME) else "other voxels"), how


# --- tables ---------------------------------------------------------------------------------------

TABLE = """Image Data ID,Subject,Group,Sex,Age,Visit,Modality,Description,Type,Acq Date,Format
I1,011_S_0001,AD,F,71,ADNI Screening,MRI,MP-RAGE,Original,9/12/2005,DCM
I2,011_S_0002,CN,M,65,ADNI Screening,MRI,MP-RAGE,Original,9/13/2005,DCM
I3,011_S_0003,MCI,F,80,ADNI1/GO Month 12,MRI,"MP-RAGE, repeat",Original,2006-09-12,DCM
I4,011_S_0004,CN,M,77,ADNI Screening,MRI,MP-RAGE,Original,9/15/2005,DCM
"""


def try_table(draw, scratch):
    text = TABLE
    for _ in range(draw.randrange(1, 4)):
        lines = text.split("\n")
        how = draw.choice(["cell", "cell", "line", "column", "delimiter", "bytes", "quote"])
        if how == "cell":
            place = draw.randrange(len(lines))
            cells = lines[place].split(",")
            cells[draw.randrange(len(cells))] = draw.choice([*ODD_TEXT, "I2", "AD", "31/31/2005"])
            lines[place] = ",".join(cells)
        elif how == "line":
            lines.insert(draw.randrange(len(lines)), draw.choice([*lines, "", ",,,", "x"]))
        elif how == "column":
            lines = [line.partition(",")[2] for line in lines]
        elif how == "delimiter":
            lines = [line.replace(",", draw.choice(["\t", ";", "|"])) for line in lines]
        elif how == "quote":
            place = draw.randrange(len(lines))
            lines[place] = lines[place].replace(",", ',"', 1)
        text = "\n".join(lines)
        if how == "bytes":
            place = draw.randrange(max(len(text), 1))
            text = text[:place] + chr(draw.randrange(256)) + text[place + 1 :]
    content = text.encode(draw.choice(["utf-8"] * 4 + ["utf-16", "latin-1"]), "replace")
    path = scratch / "scans.csv"
    path.write_bytes(content)
    places = {f"I{n}": [f"/data/I{n}"] for n in range(1, 5)}
    try:
        scans = list_scans(read_table(path), places, [["AD", "NC"]], path, {}, {})
    except SetupFault as fault:
        clean(str(fault))
        return "refused", how
    for scan in scans:
        if scan.fate is None:
            assert scan.group in ("AD", "NC") and scan.place and scan.session.isalnum()
            assert scan.subject_label and len(scan.subject_label) < 50
        else:
            clean(scan.fate.reason)
    lost = sum(scan.fate is not None and scan.fate.status == "failed" for scan in scans)
    return ("lines lost" if lost else "as it was"), how


# --- configurations -------------------------------------------------------------------------------


def leaves(value, path=()):
    """Every place in nested mappings."""
    for key, inner in value.items():
        yield (*path, key)
        if isinstance(inner, dict):
            yield from leaves(inner, (*path, key))


def spoil_config(draw, config):
    """Replace, take away, rename or add a key."""
    config = copy.deepcopy(config)
    *path, last = draw.choice(list(leaves(config)))
    holder = config
    for key in path:
        holder = holder[key]
    how = draw.choice(["value", "value", "value", "gone", "renamed", "added"])
    where = ".".join([*path, last])
    if how == "value":
        found = holder[last]
        numbers = [found * -1, found * 1000, found + 1] if isinstance(found, int | float) else []
        holder[last] = copy.deepcopy(draw.choice([*ODD, *ODD_TEXT, *numbers]))
        where = f"{where} is {str(holder[last])[:20]!r}"
    elif how == "gone":
        del holder[last]
    elif how == "renamed":
        holder[f"{last}x"] = holder.pop(last)
    else:
        holder[draw.choice(["new", 5, "", "results"])] = draw.choice(ODD)
    return config, f"{how}: {where}"


def try_config(draw, scratch, base=None):
    """Through a dry run of the whole workflow."""
    from workflow.conftest import TINY, plan

    config, told = spoil_config(draw, TINY if base is None else base)
    run = plan(scratch, "-n", "--quiet", config=config)
    assert "Traceback" not in run.said, run.said[-3000:]
    if run.status:
        lines = [line for line in run.said.splitlines() if line.strip()]
        assert any(line.startswith(("config", "scan table", "cohort")) for line in lines), run.said[
            -2000:
        ]
        return "refused", told
    return "planned", told


# --- all of them ----------------------------------------------------------------------------------

KINDS = {"dicom": try_dicom, "volume": try_volume, "table": try_table, "config": try_config}


def clean(*texts):
    """A message for people: one line, no traceback."""
    for text in texts:
        assert "\n" not in text
        assert "Traceback" not in text
        assert len(text) < 12_000


def too_long(number, frame):
    raise TimeoutError(f"took longer than {LONGEST_S} s")


def try_one(kind, seed):
    """The outcome of one input, and what was done to it."""
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LONGEST_S)
    try:
        with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return KINDS[kind](random.Random(f"{kind}/{seed}"), Path(scratch))
    finally:
        signal.alarm(0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=400, help="of each kind")
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--verbose", action="store_true", help="tell each input and its outcome")
    told = parser.parse_args()
    bad = 0
    for kind in told.kinds:
        outcomes = Counter()
        for seed in range(told.first, told.first + told.inputs):
            try:
                outcome, what = try_one(kind, seed)
            except Exception as error:
                outcome, what = "NOT CLEAN", ""
                print(f"{kind} {seed}: {type(error).__name__}: {str(error)[:1500]}")
                traceback.print_exc(limit=-3)
            outcomes[outcome] += 1
            if told.verbose:
                print(f"{kind} {seed}: {outcome}: {what}", flush=True)
        bad += outcomes["NOT CLEAN"]
        listed = ", ".join(f"{count} {name}" for name, count in outcomes.most_common())
        print(f"{kind}: {told.inputs} inputs: {listed}", flush=True)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
