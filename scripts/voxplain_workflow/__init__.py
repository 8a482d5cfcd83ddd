"""The workflow around the library voxplain: its Snakefile and scripts share it.

``planning``: settings and tables to a plan; ``jobs``: the frame of a job; ``running``: what goes on
around a run; ``reports``: its pages. Nothing here computes anything of neuroimaging.
"""

import os.path
import sys

# A job finds this package last, at the end of sys.path. What it imports next shall be of the same
# checkout: not another voxplain that somebody installed.
_SCRIPTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if sys.path[:1] != [_SCRIPTS]:
    sys.path.insert(0, _SCRIPTS)
