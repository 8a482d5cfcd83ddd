"""A simulated cohort: DICOM series in the archive's tree, the archive's table, the truth."""


rule build_head:
    """Build a head around the packaged template brain."""
    output:
        t1=layout.head_file("T1w").replace("{head}", PACKAGED_HEAD),
        brain=layout.head_file("mask").replace("{head}", PACKAGED_HEAD),
        areas=layout.head_file("areas").replace("{head}", PACKAGED_HEAD),
    log:
        layout.log("build_head", "{cohort}"),
    benchmark:
        layout.benchmark("build_head", "{cohort}")
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
        head=simulate.users_head,
        tools=f"{layout.COHORT}/tools.json",
    output:
        mask=layout.head_file("desc-brain_mask"),
    log:
        layout.log("strip_head", "{cohort}", "{head}"),
    benchmark:
        layout.benchmark("strip_head", "{cohort}", "{head}")
    wildcard_constraints:
        cohort=SIMULATED,
    conda:
        "../envs/fsl.yaml" if preprocess.may_use_fsl else "../envs/deepbet.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(15),
    params:
        settings=simulate.skull,
        code=code_of("strip_head"),
    script:
        "../scripts/strip_head.py"


rule register_head:
    """Lay the areas of AAL into a user's own head volume."""
    input:
        head=simulate.users_head,
        mask=layout.head_file("desc-brain_mask"),
    output:
        t1=layout.head_file("T1w"),
        brain=layout.head_file("mask"),
        areas=layout.head_file("areas"),
    log:
        layout.log("register_head", "{cohort}", "{head}"),
    benchmark:
        layout.benchmark("register_head", "{cohort}", "{head}")
    wildcard_constraints:
        cohort=SIMULATED,
    conda:
        "../envs/ants.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(20),
    params:
        seed=SETTINGS["registration"]["seed"],
        code=code_of("register_head"),
    script:
        "../scripts/register_head.py"


rule simulate_scan:
    """Simulate one scan and write it as a DICOM series."""
    input:
        t1=simulate.head("T1w"),
        brain=simulate.head("mask"),
        areas=simulate.head("areas"),
    output:
        dicom=directory(f"{layout.SOURCE}/ADNI/{{ptid}}/{{description}}/{{moment}}/{{image}}"),
        truth=f"{layout.SOURCE}/truth/{{ptid}}/{{description}}/{{moment}}/{{image}}_truth.nii.gz",
        measures=f"{layout.SOURCE}/truth/{{ptid}}/{{description}}/{{moment}}/{{image}}_truth.json",
    log:
        layout.log("simulate_scan", "{cohort}", "{ptid}", "{description}", "{moment}", "{image}"),
    benchmark:
        layout.benchmark(
            "simulate_scan", "{cohort}", "{ptid}", "{description}", "{moment}", "{image}"
        )
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
        planned=simulate.planned,
        settings=simulate.settings,
        code=code_of("simulate_scan"),
    script:
        "../scripts/simulate_scan.py"


rule write_scan_table:
    """Write the simulated cohort's table as the archive exports it."""
    output:
        table=layout.SIMULATED_TABLE,
    log:
        layout.log("write_scan_table", "{cohort}"),
    benchmark:
        layout.benchmark("write_scan_table", "{cohort}")
    wildcard_constraints:
        cohort=SIMULATED,
    conda:
        "../envs/simulate.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=5,
    params:
        rows=simulate.rows,
        code=code_of("write_scan_table"),
    script:
        "../scripts/write_scan_table.py"


rule check_simulation:
    """Compare what the simulation did with what it was to do, and with what tells the classes apart."""
    input:
        measures=simulate.measures,
    output:
        table=report(
            layout.SIMULATION,
            caption="../report/simulation.rst",
            category="Cohort",
            subcategory="{cohort}",
            labels={"what": "simulation table"},
        ),
        picture=[
            report(
                f"{layout.COHORT}/simulation.png",
                caption="../report/simulation.rst",
                category="Cohort",
                subcategory="{cohort}",
                labels={"what": "simulation"},
            ),
            f"{layout.COHORT}/simulation.pdf",
        ],
    log:
        layout.log("check_simulation", "{cohort}"),
    benchmark:
        layout.benchmark("check_simulation", "{cohort}")
    wildcard_constraints:
        cohort=SIMULATED,
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(1500),
        runtime=growing(15),
    params:
        scans=simulate.scans,
        reference=simulate.reference,
        code=code_of("check_simulation"),
    script:
        "../scripts/check_simulation.py"
