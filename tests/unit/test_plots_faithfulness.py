import numpy as np
import pandas as pd

from voxplain.comparison.faithfulness import DIRECTIONS, RANDOM
from voxplain.plots.faithfulness import plot_faithfulness, plot_randomisation

AT = np.linspace(0, 1, 11)


def curves(values, classes=("AD", "NC")):
    """Method and draw to the value of a flat curve."""
    return pd.concat(
        pd.DataFrame(
            {
                "method": method,
                "draw": draw,
                "class": group,
                "direction": direction,
                "fraction": AT,
                "probability": value,
            }
        )
        for (method, draw), value in values.items()
        for group in classes
        for direction in DIRECTIONS
    )


def lines_of(axes):
    return [set(np.round(line.get_ydata(), 6)) for line in axes.lines]


def test_every_class_has_its_two_panels_with_random_orders_as_one_line_and_a_band(drawn):
    values = {("b", 0): 0.2, ("a", 0): 0.7, (RANDOM, 1): 0.3, (RANDOM, 2): 0.5}
    _, figure = drawn(plot_faithfulness, curves(values), ["a", "b"], "a run")
    assert [axes.get_title() for axes in figure.axes] == [
        f"{direction}, {group} scans" for group in ("AD", "NC") for direction in DIRECTIONS
    ]
    for axes in figure.axes:
        assert lines_of(axes) == [{0.4}, {0.7}, {0.2}]
        band = axes.collections[0].get_paths()[0].vertices[:, 1]
        assert (band.min(), band.max()) == (0.3, 0.5)
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told == ["a", "b", "random orders"]


def test_nothing_to_draw_is_an_empty_picture(drawn):
    _, figure = drawn(plot_faithfulness, curves({("a", 0): 0.1}).iloc[:0], ["a"], "a run")
    assert len(figure.axes) == 2
    table = pd.DataFrame(columns=["method", "step", "layer", "mean"])
    _, figure = drawn(plot_randomisation, table, "a run")
    assert lines_of(figure.axes[0]) == [{0}]


def test_a_method_starts_at_one_and_follows_the_layers_from_the_output(drawn):
    rows = [
        ("lrp", 1, "fc", 0.5),
        ("lrp", 2, "conv", -0.25),
        ("cam", 1, "fc", np.nan),
        ("cam", 2, "conv", 0.125),
    ]
    table = pd.DataFrame(rows, columns=["method", "step", "layer", "mean"])
    _, figure = drawn(plot_randomisation, table, "a run")
    (axes,) = figure.axes
    first, second, _ = axes.lines
    assert list(first.get_xdata()) == [0, 1, 2]
    assert list(first.get_ydata()) == [1, 0.5, -0.25]
    np.testing.assert_array_equal(second.get_ydata(), [1, np.nan, 0.125])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["none", "fc", "conv"]
    assert axes.get_ylim()[0] < -0.25
