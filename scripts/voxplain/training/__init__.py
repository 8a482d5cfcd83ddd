"""From volumes on disk to a trained network and its predictions."""
