"""What the Snakefile and its scripts share: settings, code fingerprints, and how a job ends.

Nothing here computes anything of neuroimaging; nothing here needs more than Snakemake itself does.
"""
