"""Print what the configured run will take, on the terminal and into the log."""

from pathlib import Path

from pipeline.estimate import describe_estimate, estimate, read_costs, read_sizes

sizes = read_sizes(snakemake.params.cohorts)
told = describe_estimate(sizes, estimate(sizes, snakemake.params.settings, read_costs()))
print(told)
Path(snakemake.log[0]).write_text(f"{told}\n", encoding="utf-8")
