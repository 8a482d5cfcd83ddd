"""voxplain: compared relevance heatmaps of 3D convolutional networks for Alzheimer's disease.

The library under the Snakemake workflow of the same name. It knows no Snakemake object, no
configuration file and no result path; it takes arrays, images and paths, and returns or writes the
same. Importing this package imports nothing heavy.
"""

__version__ = "0.1.0"
