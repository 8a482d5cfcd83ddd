"""From heatmaps of scans to averages, distances between methods, and brain areas."""
