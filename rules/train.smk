"""A network for each split and seed, and how good it is."""


rule train_network:
    """Train a network on one side of a split and predict the other."""
    input:
        members=f"{layout.SPLIT}_members.tsv",
        audit=f"{layout.SPLIT}_audit.json",
        volumes=train.files(layout.STORED, "train", "test"),
        mean=f"{layout.SPLIT}_mean.nii.gz",
        sd=f"{layout.SPLIT}_sd.nii.gz",
        statistics=f"{layout.SPLIT}_statistics.json",
        mask=f"{layout.TEMPLATE}_mask.nii.gz",
    output:
        model=f"{layout.RUN}/model.pt",
        history=f"{layout.RUN}/history.tsv",
        predictions=f"{layout.RUN}/predictions.tsv",
        record=f"{layout.RUN}/training.json",
    log:
        layout.log("train_network", *layout.of_split("{model}", "seed-{seed}")),
    benchmark:
        layout.benchmark("train_network", *layout.of_split("{model}", "seed-{seed}"))
    conda:
        "../envs/torch.yaml"
    threads: SETTINGS["threads"]
    resources:
        gpu=GPUS,
        device=DEVICE,
        mem_mb=train.memory,
        runtime=growing(720),
    params:
        settings=train.settings,
        threads=SETTINGS["threads"],
        code=train.code_of_training,
    script:
        "../scripts/train_network.py"


rule evaluate_network:
    """Measure how good a network's predictions of its test scans are."""
    input:
        predictions=f"{layout.RUN}/predictions.tsv",
        record=f"{layout.RUN}/training.json",
    output:
        metrics=f"{layout.RUN}/metrics.json",
    log:
        layout.log("evaluate_network", *layout.of_split("{model}", "seed-{seed}")),
    benchmark:
        layout.benchmark("evaluate_network", *layout.of_split("{model}", "seed-{seed}"))
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        roc_auc=SETTINGS["evaluation"]["roc_auc"],
        code=code_of("evaluate_network"),
    script:
        "../scripts/evaluate_network.py"


rule write_events:
    """Write a training's history, hyperparameters and results for TensorBoard."""
    input:
        history=f"{layout.RUN}/history.tsv",
        metrics=f"{layout.RUN}/metrics.json",
    output:
        events=layout.EVENTS,
    log:
        layout.log("write_events", *layout.of_split("{model}", "seed-{seed}")),
    benchmark:
        layout.benchmark("write_events", *layout.of_split("{model}", "seed-{seed}"))
    conda:
        "../envs/tensorboard.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        hyperparameters=train.hyperparameters,
        code=code_of("write_events"),
    script:
        "../scripts/write_events.py"


rule evaluate_folds:
    """Put the folds of a cross-validation side by side, with their mean and SD."""
    input:
        folds=train.fold_files,
    output:
        table=report(
            f"{layout.NETWORK}/cross_validation.tsv",
            caption="../report/cross_validation.rst",
            category="Cross-validation",
            subcategory="{cohort} {task}",
            labels={"model": "{model}", "what": "table"},
        ),
        learning=[
            report(
                f"{layout.NETWORK}/learning_curves.png",
                caption="../report/learning_curves.rst",
                category="Cross-validation",
                subcategory="{cohort} {task}",
                labels={"model": "{model}", "what": "learning curves"},
            ),
            f"{layout.NETWORK}/learning_curves.pdf",
        ],
        roc=[
            report(
                f"{layout.NETWORK}/roc.png",
                caption="../report/roc.rst",
                category="Cross-validation",
                subcategory="{cohort} {task}",
                labels={"model": "{model}", "what": "ROC curves"},
            ),
            f"{layout.NETWORK}/roc.pdf",
        ],
        confusion=[
            report(
                f"{layout.NETWORK}/confusion.png",
                caption="../report/confusion.rst",
                category="Cross-validation",
                subcategory="{cohort} {task}",
                labels={"model": "{model}", "what": "confusion matrices"},
            ),
            f"{layout.NETWORK}/confusion.pdf",
        ],
    log:
        layout.log("evaluate_folds", "{cohort}", "{task}", "{model}"),
    benchmark:
        layout.benchmark("evaluate_folds", "{cohort}", "{task}", "{model}")
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=15,
    params:
        classes=train.classes,
        network=train.label,
        roc_auc=SETTINGS["evaluation"]["roc_auc"],
        folds=train.folds,
        code=code_of("evaluate_folds"),
    script:
        "../scripts/evaluate_folds.py"


rule measure_areas:
    """Measure the mean intensity of the brain areas of every scan in a task."""
    input:
        volumes=train.volumes,
        mask=f"{layout.TEMPLATE}_mask.nii.gz",
        labels=f"{layout.ATLAS}.nii.gz",
        names=f"{layout.ATLAS}.tsv",
    output:
        table=layout.AREA_MEANS,
    log:
        layout.log("measure_areas", "{cohort}", "{task}"),
    benchmark:
        layout.benchmark("measure_areas", "{cohort}", "{task}")
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(2000, least_mb=1000),
        runtime=growing(60),
    params:
        scans=train.scans,
        code=code_of("measure_areas"),
    script:
        "../scripts/measure_areas.py"


rule fit_baseline:
    """Tell the classes apart without a network, on every split of a task."""
    input:
        members=train.member_files,
        areas=train.areas,
    output:
        predictions=f"{layout.BASELINE}/predictions.tsv",
        coefficients=f"{layout.BASELINE}/coefficients.tsv",
        table=report(
            f"{layout.BASELINE}/cross_validation.tsv",
            caption="../report/baseline.rst",
            category="Cross-validation",
            subcategory="{cohort} {task}",
            labels={"model": "{baseline}", "what": "table"},
        ),
    log:
        layout.log("fit_baseline", "{cohort}", "{task}", "{baseline}"),
    benchmark:
        layout.benchmark("fit_baseline", "{cohort}", "{task}", "{baseline}")
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=growing(30),
    params:
        classes=train.classes,
        label=train.baseline_label,
        people=train.ages_and_sexes,
        members=train.members_by_split,
        roc_auc=SETTINGS["evaluation"]["roc_auc"],
        code=code_of("fit_baseline"),
    script:
        "../scripts/fit_baseline.py"


rule summarise_networks:
    """Put all tasks, networks, baselines and cohorts into one table and one picture."""
    input:
        predictions=train.all_predictions,
    output:
        table=report(
            layout.SUMMARY,
            caption="../report/summary.rst",
            category="Summary",
            labels={"what": "table"},
        ),
        differences=report(
            f"{layout.RESULTS}/against_baselines.tsv",
            caption="../report/against_baselines.rst",
            category="Summary",
            labels={"what": "networks against baselines"},
        ),
        picture=[
            report(
                f"{layout.RESULTS}/summary.png",
                caption="../report/summary.rst",
                category="Summary",
                labels={"what": "ROC AUC"},
            ),
            f"{layout.RESULTS}/summary.pdf",
        ],
    log:
        layout.log("summarise_networks"),
    benchmark:
        layout.benchmark("summarise_networks")
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=15,
    params:
        networks=train.tested_networks,
        baselines=train.tested_baselines,
        roc_auc=SETTINGS["evaluation"]["roc_auc"],
        code=code_of("summarise_networks"),
    script:
        "../scripts/summarise_networks.py"
