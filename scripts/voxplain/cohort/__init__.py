"""Which scans there are: tables, DICOM series, and simulated cohorts."""
