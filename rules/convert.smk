"""From the files of a scan, DICOM as a rule, to one volume."""


rule convert_series:
    """Convert one scan's DICOM series with dcm2niix, or take its volume as it is."""
    input:
        source=preprocess.source,
    output:
        volume=intermediate("T1w.nii.gz"),
        sidecar=layout.scan_file("T1w.json"),
        digests=layout.scan_file("T1w.sha256", kind="provenance"),
    log:
        layout.log("convert_series", *layout.OF_SCAN),
    benchmark:
        layout.benchmark("convert_series", *layout.OF_SCAN)
    conda:
        "../envs/dcm2niix.yaml"
    threads: 1
    resources:
        **SCAN_CHAIN,
        mem_mb=growing(1000),
        runtime=growing(3),
    params:
        settings=preprocess.conversion,
        code=code_of("convert_series"),
    script:
        "../scripts/convert_series.py"


rule verify_inputs:
    """Name every source file that changed since its scan was converted."""

    # No output and no benchmark file: a rule that would leave one runs only once.
    log:
        layout.log("verify_inputs"),
    conda:
        "../envs/dcm2niix.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=120,
    params:
        scans=preprocess.converted,
    script:
        "../scripts/verify_inputs.py"
