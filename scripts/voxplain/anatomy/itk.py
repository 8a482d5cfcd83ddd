"""Import of the package ants, and arrays on grids as its images."""

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

# Packages that ants imports for plots, statistical models and downloads. Every job is a separate
# process: without them, importing ants takes half the time.
_UNUSED = {"matplotlib", "mpl_toolkits", "requests", "sklearn", "statsmodels"}


class _Placeholder(ModuleType):
    """Replaces a module that is imported but not used; its attributes are placeholders, too."""

    def __getattr__(self, name: str) -> _Placeholder:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Placeholder(f"{self.__name__}.{name}")

    def __call__(self, *_: object, **__: object) -> NoReturn:
        raise ImportError(f"{self.__name__} is left out by import_ants")


class _Placeholders(MetaPathFinder, Loader):
    """Import hook that gives a placeholder for each unused package that is not imported yet."""

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
        """Do nothing: a placeholder has no code to run."""


def import_ants() -> Any:
    """The package ants, without its plots and statistical models.

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
        # Later imports of these packages give the real ones.
        for name, module in list(sys.modules.items()):
            if isinstance(module, _Placeholder):
                del sys.modules[name]
    return ants


def as_ants(array: np.ndarray, grid: Grid) -> ants.ANTsImage:
    """An array ``[x, y, z]`` as an ANTs image, converted from RAS+ to ITK's LPS+."""
    ants = import_ants()
    flip = np.diag([-1.0, -1.0, 1.0])
    direction = flip @ grid.matrix[:3, :3] / np.array(grid.voxel_size)
    return ants.from_numpy(
        np.asarray(array, np.float32),
        origin=tuple(flip @ grid.matrix[:3, 3]),
        spacing=grid.voxel_size,
        direction=direction,
    )
