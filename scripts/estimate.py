"""Print what the configured run will take, on the terminal and into the log."""

from pathlib import Path

print(snakemake.params.text)
Path(snakemake.log[0]).write_text(f"{snakemake.params.text}\n", encoding="utf-8")
