"""A network for each split and seed, and how good it is."""


rule train_network:
    """Train a network on one side of a split and test it on the other."""
    input:
        members=f"{SPLIT}_members.tsv",
        audit=f"{SPLIT}_audit.json",
        volumes=scans_of_split(STORED, "train", "test"),
        mean=f"{SPLIT}_mean.nii.gz",
        sd=f"{SPLIT}_sd.nii.gz",
        statistics=f"{SPLIT}_statistics.json",
        mask=f"{TEMPLATE}_mask.nii.gz",
    output:
        model=f"{RUN}/model.pt",
        history=f"{RUN}/history.tsv",
        predictions=f"{RUN}/predictions.tsv",
        metrics=f"{RUN}/metrics.json",
    log:
        split_log("train_network", "{model}", "seed-{seed}"),
    benchmark:
        split_benchmark("train_network", "{model}", "seed-{seed}")
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        gpu=GPUS,
        device=config["device"],
        mem_mb=mb_of_training,
        runtime=growing(720),
    params:
        settings=training_settings,
        version=VERSION,
        code=code_of_training,
    script:
        "../scripts/train_network.py"


rule write_events:
    """Write a training's history, hyperparameters and results for TensorBoard."""
    input:
        history=f"{RUN}/history.tsv",
        metrics=f"{RUN}/metrics.json",
    output:
        events=EVENTS,
    log:
        split_log("write_events", "{model}", "seed-{seed}"),
    benchmark:
        split_benchmark("write_events", "{model}", "seed-{seed}")
    conda:
        "../envs/tensorboard.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        hyperparameters=hyperparameters_of_training,
        code=code_of("write_events"),
    script:
        "../scripts/write_events.py"


rule evaluate_folds:
    """Put the folds of a cross-validation side by side, with their mean and SD."""
    input:
        predictions=of_folds(f"{RUN}/predictions.tsv"),
        histories=of_folds(f"{RUN}/history.tsv"),
    output:
        table=report(
            "results/{cohort}/{task}/{model}/cross_validation.tsv",
            caption="../report/cross_validation.rst",
            category="Cross-validation",
            subcategory="{cohort} {task}",
            labels={"model": "{model}", "what": "table"},
        ),
        learning=[
            report(
                "results/{cohort}/{task}/{model}/learning_curves.png",
                caption="../report/learning_curves.rst",
                category="Cross-validation",
                subcategory="{cohort} {task}",
                labels={"model": "{model}", "what": "learning curves"},
            ),
            "results/{cohort}/{task}/{model}/learning_curves.pdf",
        ],
        roc=[
            report(
                "results/{cohort}/{task}/{model}/roc.png",
                caption="../report/roc.rst",
                category="Cross-validation",
                subcategory="{cohort} {task}",
                labels={"model": "{model}", "what": "ROC curves"},
            ),
            "results/{cohort}/{task}/{model}/roc.pdf",
        ],
        confusion=[
            report(
                "results/{cohort}/{task}/{model}/confusion.png",
                caption="../report/confusion.rst",
                category="Cross-validation",
                subcategory="{cohort} {task}",
                labels={"model": "{model}", "what": "confusion matrices"},
            ),
            "results/{cohort}/{task}/{model}/confusion.pdf",
        ],
    log:
        "logs/evaluate_folds/{cohort}/{task}/{model}.log",
    benchmark:
        "results/benchmarks/evaluate_folds/{cohort}/{task}/{model}.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=15,
    params:
        classes=classes_of_task,
        network=network_label,
        roc_auc=config["evaluation"]["roc_auc"],
        code=code_of("evaluate_folds"),
    script:
        "../scripts/evaluate_folds.py"


rule measure_areas:
    """Measure the mean intensity of the brain areas of every scan in a task."""
    input:
        volumes=volumes_of_task,
        mask=f"{TEMPLATE}_mask.nii.gz",
        labels=f"{ATLAS}.nii.gz",
        names=f"{ATLAS}.tsv",
    output:
        table=AREA_MEANS,
    log:
        "logs/measure_areas/{cohort}/{task}.log",
    benchmark:
        "results/benchmarks/measure_areas/{cohort}/{task}.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(2000, least_mb=1000),
        runtime=growing(60),
    params:
        scans=scans_of_task,
        code=code_of("measure_areas"),
    script:
        "../scripts/measure_areas.py"


rule fit_baseline:
    """Tell the classes apart without a network, on every split of a task."""
    input:
        members=of_splits(f"{SPLIT}_members.tsv"),
        areas=areas_of_task,
    output:
        predictions=f"{BASELINE}/predictions.tsv",
        coefficients=f"{BASELINE}/coefficients.tsv",
        table=report(
            f"{BASELINE}/cross_validation.tsv",
            caption="../report/baseline.rst",
            category="Cross-validation",
            subcategory="{cohort} {task}",
            labels={"model": "{baseline}", "what": "table"},
        ),
    log:
        "logs/fit_baseline/{cohort}/{task}/{baseline}.log",
    benchmark:
        "results/benchmarks/fit_baseline/{cohort}/{task}/{baseline}.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=growing(30),
    params:
        classes=classes_of_task,
        label=label_of_baseline,
        people=people_of_splits,
        roc_auc=config["evaluation"]["roc_auc"],
        code=code_of("fit_baseline"),
    script:
        "../scripts/fit_baseline.py"


rule summarise_networks:
    """Put all tasks, networks, baselines and cohorts into one table and one picture."""
    input:
        predictions=all_predictions,
        baselines=all_baseline_predictions,
    output:
        table=report(
            "results/summary.tsv",
            caption="../report/summary.rst",
            category="Summary",
            labels={"what": "table"},
        ),
        differences=report(
            "results/against_baselines.tsv",
            caption="../report/against_baselines.rst",
            category="Summary",
            labels={"what": "networks against baselines"},
        ),
        picture=[
            report(
                "results/summary.png",
                caption="../report/summary.rst",
                category="Summary",
                labels={"what": "ROC AUC"},
            ),
            "results/summary.pdf",
        ],
    log:
        "logs/summarise_networks.log",
    benchmark:
        "results/benchmarks/summarise_networks.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=15,
    params:
        networks=all_networks,
        baselines=all_baselines,
        roc_auc=config["evaluation"]["roc_auc"],
        code=code_of("summarise_networks"),
    script:
        "../scripts/summarise_networks.py"
