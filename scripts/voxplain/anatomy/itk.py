"""The package ants, arrays on grids as its images, and back."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from voxplain.volumes import Grid

if TYPE_CHECKING:
    import ants

# What ants imports for plots, models of tables and downloads. Every job is a process of its own:
# without these, importing ants takes half the time.
_UNUSED = {"matplotlib", "mpl_toolkits", "requests", "sklearn", "statsmodels"}


class _Placeholder(ModuleType):
    """Stands for a module that is imported and not used; so does each of its attributes."""

    def __getattr__(self, name: str) -> _Placeholder:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Placeholder(f"{self.__name__}.{name}")

    def __call__(self, *_: object, **__: object) -> NoReturn:
        raise ImportError(f"{self.__name__} is left out by import_ants")


class _Placeholders(MetaPathFinder, Loader):
    """Finds a placeholder for each of the unused packages that is not imported yet."""

    def __init__(self) -> None:
        self._packages = _UNUSED - sys.modules.keys()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        unused = fullname.partition(".")[0] in self._packages
        return ModuleSpec(fullname, self, is_package=True) if unused else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Placeholder(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leave it as it is: a placeholder has no code to run."""


def import_ants() -> Any:
    """The package ants, without its plots and its models of tables.

    Packages that were imported before this call are used as they are.
    """
    if "ants" in sys.modules:
        return sys.modules["ants"]
    finder = _Placeholders()
    sys.meta_path.insert(0, finder)
    try:
        import ants
    finally:
        sys.meta_path.remove(finder)
        # Whoever imports these packages later gets them.
        for name, module in list(sys.modules.items()):
            if isinstance(module, _Placeholder):
                del sys.modules[name]
    return ants


def as_ants(array: np.ndarray, grid: Grid) -> ants.ANTsImage:
    """An array ``[x, y, z]`` as an ANTs image, whose space is ITK's LPS+ where ours is RAS+."""
    ants = import_ants()
    flip = np.diag([-1.0, -1.0, 1.0])
    direction = flip @ grid.matrix[:3, :3] / np.array(grid.voxel_size)
    return ants.from_numpy(
        np.asarray(array, np.float32),
        origin=tuple(flip @ grid.matrix[:3, 3]),
        spacing=grid.voxel_size,
        direction=direction,
    )
