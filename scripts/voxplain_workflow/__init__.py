"""The workflow around the library voxplain: its Snakefile and scripts share it.

``planning``: settings and tables to a plan; ``jobs``: the frame of a job; ``running``: what goes on
around a run; ``reports``: its pages. Nothing here computes anything of neuroimaging.
"""
