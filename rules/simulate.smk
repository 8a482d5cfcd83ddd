"""A simulated cohort: DICOM series in the archive's tree, the archive's table, the truth."""


rule build_head:
    """Build a head around the packaged template brain."""
    output:
        t1=head_file("T1w").replace("{head}", PACKAGED_HEAD),
        brain=head_file("mask").replace("{head}", PACKAGED_HEAD),
        areas=head_file("areas").replace("{head}", PACKAGED_HEAD),
    log:
        "logs/build_head/{cohort}.log",
    benchmark:
        "results/benchmarks/build_head/{cohort}.tsv"
    wildcard_constraints:
        cohort=SIMULATED,
    conda:
        "../envs/simulate.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        code=code_of("build_head"),
    script:
        "../scripts/build_head.py"


rule strip_head:
    """Find the brain in a user's own head volume."""
    input:
        head=users_head,
        tools="results/{cohort}/tools.json",
    output:
        mask=head_file("desc-brain_mask"),
    log:
        "logs/strip_head/{cohort}/{head}.log",
    benchmark:
        "results/benchmarks/strip_head/{cohort}/{head}.tsv"
    wildcard_constraints:
        cohort=SIMULATED,
    conda:
        "../envs/fsl.yaml" if MAY_USE_FSL else "../envs/deepbet.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(15),
    params:
        settings=skull_settings(),
        code=code_of("strip_head"),
    script:
        "../scripts/strip_head.py"


rule register_head:
    """Lay the areas of AAL into a user's own head volume."""
    input:
        head=users_head,
        mask=head_file("desc-brain_mask"),
    output:
        t1=head_file("T1w"),
        brain=head_file("mask"),
        areas=head_file("areas"),
    log:
        "logs/register_head/{cohort}/{head}.log",
    benchmark:
        "results/benchmarks/register_head/{cohort}/{head}.tsv"
    wildcard_constraints:
        cohort=SIMULATED,
    conda:
        "../envs/ants.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(20),
    params:
        seed=config["registration"]["seed"],
        code=code_of("register_head"),
    script:
        "../scripts/register_head.py"


rule simulate_scan:
    """Simulate one scan and write it as a DICOM series."""
    input:
        t1=head_of_scan("T1w"),
        brain=head_of_scan("mask"),
        areas=head_of_scan("areas"),
    output:
        dicom=directory("results/{cohort}/source/ADNI/{ptid}/{description}/{moment}/{image}"),
        truth="results/{cohort}/source/truth/{ptid}/{description}/{moment}/{image}_truth.nii.gz",
        measures="results/{cohort}/source/truth/{ptid}/{description}/{moment}/{image}_truth.json",
    log:
        "logs/simulate_scan/{cohort}/{ptid}/{description}/{moment}/{image}.log",
    benchmark:
        "results/benchmarks/simulate_scan/{cohort}/{ptid}/{description}/{moment}/{image}.tsv"
    wildcard_constraints:
        cohort=SIMULATED,
    conda:
        "../envs/simulate.yaml"
    threads: 1
    resources:
        **SCAN_CHAIN,
        mem_mb=growing(3000),
        runtime=growing(5),
    params:
        planned=planned_scan,
        settings=simulation_of,
        code=code_of("simulate_scan"),
    script:
        "../scripts/simulate_scan.py"


rule write_scan_table:
    """Write the simulated cohort's table as the archive exports it."""
    output:
        table="results/{cohort}/source/scans.csv",
    log:
        "logs/write_scan_table/{cohort}.log",
    benchmark:
        "results/benchmarks/write_scan_table/{cohort}.tsv"
    wildcard_constraints:
        cohort=SIMULATED,
    conda:
        "../envs/simulate.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=5,
    params:
        rows=planned_rows,
        code=code_of("write_scan_table"),
    script:
        "../scripts/write_scan_table.py"


rule check_simulation:
    """Compare what the simulation did with what it was to do, and with what tells the classes apart."""
    input:
        measures=measures_of_cohort,
    output:
        table=report(
            "results/{cohort}/simulation.tsv",
            caption="../report/simulation.rst",
            category="Cohort",
            subcategory="{cohort}",
            labels={"what": "simulation table"},
        ),
        picture=[
            report(
                "results/{cohort}/simulation.png",
                caption="../report/simulation.rst",
                category="Cohort",
                subcategory="{cohort}",
                labels={"what": "simulation"},
            ),
            "results/{cohort}/simulation.pdf",
        ],
    log:
        "logs/check_simulation/{cohort}.log",
    benchmark:
        "results/benchmarks/check_simulation/{cohort}.tsv"
    wildcard_constraints:
        cohort=SIMULATED,
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(1500),
        runtime=growing(15),
    params:
        scans=simulated_scans,
        reference=reference_group,
        code=code_of("check_simulation"),
    script:
        "../scripts/check_simulation.py"
