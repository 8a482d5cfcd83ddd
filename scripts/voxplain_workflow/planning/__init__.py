"""The plan of a run, made from settings and tables; needs only the dependencies of Snakemake."""
