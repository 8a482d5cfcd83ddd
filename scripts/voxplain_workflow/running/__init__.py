"""Start, progress, cost, failures and summary of a run."""
