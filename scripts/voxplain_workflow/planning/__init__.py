"""From settings and tables to a plan of a run; needs nothing but Snakemake's own dependencies."""
