"""Common to all figures: file types, sizes, and no display."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from voxplain import plots
from voxplain.plots.figures import PAGE, Picture, in_print, save


def two_panels(width=3.5):
    figure = Picture(figsize=(width, 2.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1])
    right.imshow(np.arange(12).reshape(3, 4), interpolation="nearest")
    figure.suptitle("Left hippocampus")
    return figure


def test_a_bitmap_has_the_resolution_of_print_and_a_vector_file_the_same_size(tmp_path):
    figure = two_panels()
    save(figure, [tmp_path / "a.png", tmp_path / "a.pdf", tmp_path / "a.svg"])
    assert imread(tmp_path / "a.png").shape[:2] == (600, 1050)
    pdf = (tmp_path / "a.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    (box,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", pdf)
    assert [float(points) / 72 for points in box] == pytest.approx([3.5, 2.0])


def test_text_stays_text_in_vector_files(tmp_path):
    save(two_panels(), [tmp_path / "a.pdf", tmp_path / "a.svg"])
    assert "Left hippocampus</text>" in (tmp_path / "a.svg").read_text()
    assert b"/Type /Font /Subtype /Type0" in (tmp_path / "a.pdf").read_bytes()  # TrueType


@pytest.mark.parametrize("kind", ["pdf", "svg", "png"])
def test_the_same_figure_is_the_same_file(tmp_path, kind):
    for name in ("first", "second"):
        save(two_panels(), tmp_path / f"{name}.{kind}")
    first, second = ((tmp_path / f"{name}.{kind}").read_bytes() for name in ("first", "second"))
    assert first == second


def test_points_that_are_scattered_lie_at_the_same_places_each_time():
    @in_print
    def draw():
        figure = Picture()
        figure.subplots().plot(np.random.uniform(size=5))  # as seaborn does
        return figure

    np.random.seed(3)
    expected = np.random.uniform(size=2)
    np.random.seed(3)
    drawn = [draw().axes[0].lines[0].get_ydata(), np.random.uniform(size=2)]
    assert draw().axes[0].lines[0].get_ydata().tolist() == drawn[0].tolist()
    np.testing.assert_array_equal(drawn[1], expected)  # the caller's numbers go on as they were


def test_an_unknown_file_type_is_refused(tmp_path):
    with pytest.raises(ValueError, match="docx"):
        save(two_panels(), tmp_path / "a.docx")


def test_a_notebook_shows_a_figure_as_a_picture():
    assert two_panels()._repr_png_().startswith(b"\x89PNG")


def test_font_sizes_do_not_depend_on_the_callers_settings():
    import matplotlib

    @in_print
    def draw():
        figure = Picture()
        return figure.subplots().set_title("a")

    with matplotlib.rc_context({"font.size": 30, "axes.titlesize": 40}):
        assert draw().get_fontsize() == 8
        assert matplotlib.rcParams["font.size"] == 30


def test_every_function_of_the_package_draws_a_figure_or_saves_one():
    assert len(plots.__all__) == 18
    for name in plots.__all__:
        assert callable(getattr(plots, name))
    with pytest.raises(AttributeError, match="no attribute 'plot_nothing'"):
        _ = plots.plot_nothing


def test_figures_of_few_methods_are_no_wider_than_a_journals_page():
    methods = ["sensitivity", "guided_backprop", "occlusion", "area_occlusion"]
    rows = [
        {"class": group, "method_a": a, "method_b": b, "distance": 1e-3 * (a != b)}
        for group in ("AD", "NC")
        for a in methods
        for b in methods
    ]
    figure = plots.plot_distances(pd.DataFrame(rows), "a cohort")
    assert figure.get_figwidth() <= PAGE


@pytest.mark.slow
def test_drawing_needs_no_display_and_leaves_no_window_open(tmp_path):
    """On a node without a screen, and with settings that ask for one."""
    code = (
        "from voxplain.plots import plot_text, save; import sys; "
        f"save(plot_text('nothing'), {str(tmp_path / 'a.png')!r}); "
        "from matplotlib import pyplot; assert not pyplot.get_fignums()"
    )
    environment = {"MPLBACKEND": "TkAgg", "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert (tmp_path / "a.png").exists()
