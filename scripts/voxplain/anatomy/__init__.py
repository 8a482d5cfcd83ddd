"""From a head in scanner space to a brain in template space, with quality control."""
