"""What the scripts of jobs share: their frame, their sidecars, and what several of them read."""
