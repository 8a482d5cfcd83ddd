"""voxplain: compared relevance heatmaps of 3D convolutional networks for Alzheimer's disease.

The library of the Snakemake workflow of the same name. It does not depend on Snakemake objects, the
configuration file or result paths; it takes arrays, images and paths, and returns or writes them.
Importing this package imports no large dependency.
"""

__version__ = "0.1.0"
