"""Some hundred small networks of the kinds that users bring, and what each method makes of them."""

from catalogue import bodies, heads, layers, states, traps, types  # noqa: F401 - they fill the catalogue
from catalogue.entries import CATALOGUE, NEEDS, Entry
from catalogue.table import Cell, cells_of, kinds_table

__all__ = ["CATALOGUE", "NEEDS", "Cell", "Entry", "cells_of", "kinds_table"]
