import numpy as np
import pandas as pd
import pytest

from voxplain.comparison.faithfulness import DIRECTIONS, RANDOM
from voxplain.plots.faithfulness import plot_faithfulness, plot_randomisation

AT = np.linspace(0, 1, 11)


def curves(values, classes=("AD", "NC")):
    """(Method, draw) -> value of a flat curve."""
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
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["a", "b", "random orders"]


def test_no_data_gives_an_empty_picture(drawn):
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


REAL = ["sensitivity", "guided_grad_cam_pp", "integrated_gradients", "voxel_occlusion"]


@pytest.mark.slow
@pytest.mark.parametrize("methods", [REAL, [f"{name}_{n}" for n in range(5) for name in REAL]])
def test_no_text_is_cut_with_the_methods_and_layers_of_a_real_run(drawn, methods):
    layers = ["classifier.6", "classifier.4", "classifier.2", "features.12", "features.8"]
    table = pd.DataFrame(
        [
            {"method": method, "step": step, "layer": layer, "mean": 0.5}
            for method in methods
            for step, layer in enumerate(layers, start=1)
        ]
    )
    title = "hippocampal, AD-NC, voxresnet_shallow_gap (pools 2,2,2,1), split fixed, seed 1"
    _, figure = drawn(plot_randomisation, table, title)
    inside_and_apart(figure)
    values = {(method, 0): 0.3 for method in methods}
    _, figure = drawn(plot_faithfulness, curves(values, ["AD"]), methods, title)
    inside_and_apart(figure)


def inside_and_apart(figure):
    """Heading, legend and labels are within the figure, and the heading is not on the legend."""
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    texts = [figure._suptitle, *figure.legends[0].get_texts()]
    texts += [label for label in (figure._supxlabel, figure._supylabel) if label is not None]
    boxes = [text.get_window_extent() for text in texts]
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
    assert not any(boxes[0].overlaps(box) for box in boxes[1:])
