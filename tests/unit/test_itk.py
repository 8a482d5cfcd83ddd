"""The package ants is imported without its unused dependencies."""

import subprocess
import sys

# In its own process: here, other tests have imported ants already.
CODE = """
import sys
import numpy as np
{before}
from voxplain.anatomy.itk import as_ants, import_ants
from voxplain.volumes import axis_aligned_grid

ants = import_ants()
assert import_ants() is ants
image = as_ants(np.eye(8)[None].repeat(8, 0), axis_aligned_grid((8, 8, 8), (1, 1, 1), (0, 0, 0)))
assert image.numpy().sum() == 64
assert ants.smooth_image(image, 1.0).numpy().max() < 1
{after}
"""


def run(repository, before="", after=""):
    code = CODE.format(before=before, after=after)
    environment = {"PYTHONPATH": str(repository / "scripts")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_unused_packages_are_not_imported_but_can_be_imported_later(repository):
    after = "assert not {'statsmodels', 'sklearn', 'matplotlib'} & sys.modules.keys()\n"
    # No other module keeps a placeholder for the package.
    after += "from voxplain.anatomy.itk import _Placeholder\n"
    after += "others = [m for n, m in sys.modules.items() if n.partition('.')[0] != 'ants']\n"
    after += "held = [v for m in others for v in list(vars(m).values())]\n"
    after += "assert not [v for v in held if isinstance(v, _Placeholder)]\n"
    after += "import sklearn.linear_model as models\n"
    after += "assert round(models.LinearRegression().fit([[0], [1]], [0, 2]).coef_[0], 6) == 2\n"
    run(repository, after=after)


def test_modules_imported_before_are_kept(repository):
    before = "import matplotlib.pyplot as plt"
    run(
        repository,
        before,
        "import matplotlib.pyplot\nassert matplotlib.pyplot is plt\nplt.figure()",
    )
