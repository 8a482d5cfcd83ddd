"""From the files of a scan, DICOM as a rule, to one volume."""


rule convert_series:
    """Convert one scan's DICOM series with dcm2niix, or take its volume as it is."""
    input:
        source=source_of_scan,
    output:
        volume=intermediate("T1w.nii.gz"),
        sidecar=scan_file("T1w.json"),
        digests=scan_file("T1w.sha256", kind="provenance"),
    log:
        scan_log("convert_series"),
    benchmark:
        scan_benchmark("convert_series")
    conda:
        "../envs/dcm2niix.yaml"
    threads: 1
    resources:
        **SCAN_CHAIN,
        mem_mb=growing(1000),
        runtime=growing(3),
    params:
        settings=conversion_settings,
        code=code_of("convert_series"),
    script:
        "../scripts/convert_series.py"


rule verify_inputs:
    """Name every source file that changed since its scan was converted."""

    # No output and no benchmark file: a rule that would leave one runs only once.
    log:
        "logs/verify_inputs.log",
    conda:
        "../envs/dcm2niix.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=120,
    params:
        scans=finished_scans,
    script:
        "../scripts/verify_inputs.py"
