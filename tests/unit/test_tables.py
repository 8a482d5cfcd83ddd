"""The tables that jobs exchange."""

import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxplain.tables import MISSING, TEXT, read_rows, read_tsv, write_rows, write_tsv

# Texts that other readers take for a missing value, a number or a truth value.
ODD_NAMES = ["null", "NA", "n/a", "nan", "None", "", "007", "1e5", "True", "-", 'a "b"', " c "]
printable = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]))


def text_of(path):
    return path.read_bytes().decode()


# --- tables of pandas -----------------------------------------------------------------------------


@pytest.mark.parametrize("column", sorted(TEXT))
def test_names_are_read_back_as_text(column, tmp_path):
    path = tmp_path / "table.tsv"
    table = pd.DataFrame({column: ODD_NAMES, "value": 0.5})
    write_tsv(table, path)
    pd.testing.assert_frame_equal(read_tsv(path), table)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_stays_text_where_it_is_the_only_one(name, tmp_path):
    path = tmp_path / "table.tsv"
    write_tsv(pd.DataFrame({"cohort": [name], "image": ["12"], "scans": [3]}), path)
    assert read_tsv(path).to_dict("records") == [{"cohort": name, "image": "12", "scans": 3}]


def test_whole_numbers_numbers_and_truth_values_are_read_as_such(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_text("n\tmean\tabove\n1\t0.25\tTrue\n2\t-inf\tFalse\n")
    table = read_tsv(path)
    assert [str(kind) for kind in table.dtypes] == ["int64", "float64", "bool"]
    assert table["mean"].tolist() == [0.25, -math.inf]


def test_a_missing_number_is_written_as_n_a_and_read_as_nan(tmp_path):
    path = tmp_path / "table.tsv"
    whole = pd.array([1, None, 3], dtype="Int64")
    write_tsv(pd.DataFrame({"n": whole, "mean": [np.nan, 0.5, 1.0], "nothing": np.nan}), path)
    assert text_of(path) == "n\tmean\tnothing\n1\tn/a\tn/a\nn/a\t0.5\tn/a\n3\t1\tn/a\n"
    table = read_tsv(path)
    assert table["n"].isna().tolist() == [False, True, False]
    assert table["mean"].isna().tolist() == [True, False, False]
    assert table["nothing"].isna().all()
    assert [str(kind) for kind in table.dtypes] == ["float64"] * 3


def test_an_empty_cell_is_a_missing_number_too(tmp_path):
    path = tmp_path / "history.tsv"
    path.write_text("epoch\tloss\n1\t0.5\n2\t\n")
    assert read_tsv(path)["loss"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("floats", "written"),
    [
        ("%.6g", ["0.123457", "1.23457e+07", "2"]),
        ("%.4f", ["0.1235", "12345678.9000", "2.0000"]),
        ("%.9g", ["0.123456789", "12345678.9", "2"]),
        (None, ["0.123456789", "12345678.9", "2.0"]),
    ],
)
def test_numbers_have_the_requested_format(floats, written, tmp_path):
    path = tmp_path / "table.tsv"
    write_tsv(pd.DataFrame({"value": [0.123456789, 12345678.9, 2.0]}), path, floats)
    assert text_of(path).split() == ["value", *written]


def test_six_digits_are_written_by_default(tmp_path):
    path = tmp_path / "table.tsv"
    write_tsv(pd.DataFrame({"image": ["I1"], "n": [1234567], "value": [1 / 3]}, index=[9]), path)
    assert text_of(path) == "image\tn\tvalue\nI1\t1234567\t0.333333\n"


def test_a_table_without_rows_keeps_its_columns(tmp_path):
    path = tmp_path / "table.tsv"
    write_tsv(pd.DataFrame(columns=["image", "value"]), path)
    table = read_tsv(path)
    assert list(table) == ["image", "value"]
    assert table.empty


def test_all_columns_are_text_if_requested(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_text("finding\tcount\nx\t1\nnull\tn/a\n")
    expected = [{"finding": "x", "count": "1"}, {"finding": "null", "count": "n/a"}]
    assert read_tsv(path, all_text=True).to_dict("records") == expected


@given(
    names=st.lists(st.tuples(printable, printable), min_size=1),
    numbers=st.lists(st.floats(allow_infinity=False), min_size=1),
)
def test_a_written_table_is_read_back(names, numbers, tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "table.tsv"
    rows = [(*names[n % len(names)], number) for n, number in enumerate(numbers)]
    table = pd.DataFrame(rows, columns=["patient", "area", "value"])
    write_tsv(table, path, "%.17g")
    result = read_tsv(path)
    assert result[["patient", "area"]].equals(table[["patient", "area"]])
    np.testing.assert_allclose(result["value"].astype(float), table["value"], rtol=1e-12)


# --- rows of text ---------------------------------------------------------------------------------


def test_written_rows_are_read_back(tmp_path):
    path = tmp_path / "rows.tsv"
    rows = [{"image": name, "fate": "usable"} for name in ODD_NAMES]
    write_rows(rows, path, ["image", "fate"])
    assert read_rows(path) == rows


def test_rows_are_in_column_order_and_a_missing_column_is_named(tmp_path):
    path = tmp_path / "rows.tsv"
    write_rows([{"b": 1.5, "a": None}, {"a": "x", "b": ""}], path, ["a", "b"])
    assert text_of(path) == f"a\tb\n{MISSING}\t1.5\nx\t\n"


def test_a_row_with_another_column_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'c'"):
        write_rows([{"a": 1, "c": 2}], tmp_path / "rows.tsv", ["a"])


def test_rows_and_tables_have_one_format(tmp_path):
    one, other = tmp_path / "rows.tsv", tmp_path / "table.tsv"
    rows = [{"image": name, "patient": f"P{n}"} for n, name in enumerate(ODD_NAMES)]
    write_rows(rows, one, ["image", "patient"])
    write_tsv(pd.DataFrame(rows), other)
    assert one.read_bytes() == other.read_bytes()
    assert read_rows(other) == read_tsv(one).to_dict("records")


def test_rows_need_no_pandas(tmp_path, repository):
    code = (
        "import sys\n"
        "from voxplain.tables import read_rows, write_rows\n"
        f"write_rows([{{'a': 1}}], {str(tmp_path / 'rows.tsv')!r}, ['a'])\n"
        f"assert read_rows({str(tmp_path / 'rows.tsv')!r}) == [{{'a': '1'}}]\n"
        "print('pandas' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository / "scripts", capture_output=True, text=True
    )
    assert done.stdout.strip() == "False", done.stderr
