"""Pictures, one function each; every function writes one file."""
