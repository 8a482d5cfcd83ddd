"""Every method on every network of the catalogue: right, or refused by the name of the cause."""

import re

import pytest
import torch
from catalogue import CATALOGUE, NEEDS, cells_of, kinds_table

from voxplain.relevance import METHODS

# torch's own, of weight norm, quantisation, nested tensors and convolutions of even kernels.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def one_thread():
    """Threads wait for each other longer than maps this small take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_cell_is_right_or_refused_by_name(name):
    entry, faults = CATALOGUE[name], []
    for method, cell in cells_of(entry).items():
        cause = entry.expected(method)
        if cell.state == "wrong":
            faults.append(f"{method}: {cell.said}")
        elif cause is None and cell.state == "refused":
            faults.append(f"{method} has to be right, and is refused: {cell.said}")
        elif cause is not None and cell.state == "right":
            faults.append(f"{method} is right now: take {cause!r} out of the catalogue")
        elif cause is not None and not re.search(cause, cell.said):
            faults.append(f"{method} is refused without naming {cause!r}: {cell.said}")
        if "\n" in cell.said:
            faults.append(f"{method}: a message of several lines: {cell.said}")
    assert not faults, "\n".join(faults)


def test_the_catalogue_has_some_hundred_networks_and_every_method():
    assert len(CATALOGUE) >= 100
    assert NEEDS.keys() == METHODS.keys()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_right_for_many_networks_and_refused_for_some(method):
    refused = sum(entry.expected(method) is not None for entry in CATALOGUE.values())
    assert 20 <= refused <= len(CATALOGUE) - 50


def test_the_documentation_has_the_table_of_the_catalogue(repository):
    assert kinds_table() in (repository / "docs/own_network.md").read_text()
