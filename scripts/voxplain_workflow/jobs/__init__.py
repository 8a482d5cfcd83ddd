"""Code that the scripts of jobs share: their frame, sidecars, and inputs of several scripts."""
