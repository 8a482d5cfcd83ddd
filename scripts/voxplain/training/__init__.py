"""From volumes on disk to a trained network and what it predicts."""
