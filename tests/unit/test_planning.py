"""The plan of a run, built in process from settings and tables."""

import csv
import dataclasses
import itertools
import os
import re
import string
from types import SimpleNamespace

import pytest
import yaml

from voxplain.faults import SetupFault
from voxplain.relevance import METHODS
from voxplain_workflow.planning import layout
from voxplain_workflow.planning.plan import Plan
from voxplain_workflow.planning.stages.preprocess import PreprocessJobs
from voxplain_workflow.planning.stages.report import ReportJobs
from voxplain_workflow.planning.stages.split import SplitJobs
from voxplain_workflow.planning.stages.targets import Targets
from voxplain_workflow.planning.stages.train import TrainJobs
from voxplain_workflow.planning.work import count_work
from voxplain_workflow.texts import unshield
from workflow.conftest import FIRST, ROOT, TINY

COHORT = TINY["cohorts"]["tiny"]


def other(**simulation):
    return {**COHORT, "simulation": {**COHORT["simulation"], **simulation}}


def with_external(**further):
    """Two cohorts, the second tested on, and a third that is only applied to."""
    cohorts = {
        "tiny": COHORT,
        "other": other(seed=4, first_number=500),
        "new": {**other(seed=5, first_number=900), "train": False},
    }
    splits = {**TINY["splits"], "external": [{"train": "tiny", "test": "other"}]}
    apply = {"networks": {"mine": "model.pt"}, "cohorts": ["new"]}
    heatmaps = {**TINY["heatmaps"], "splits": "all"}
    return {**TINY, "cohorts": cohorts, "splits": splits, "apply": apply, "heatmaps": heatmaps} | (
        further
    )


def archive(folder, scans=969):
    """A table like the paper's, and a folder for each scan."""
    rows = [
        {
            "Image Data ID": f"I{100000 + n}",
            "Subject": f"{n // 3 % 150 + 1:03d}_S_{n // 3:04d}",
            "Group": ("AD", "CN")[n // 3 % 2],
            "Sex": "M",
            "Age": 70,
            "Visit": f"m{6 * (n % 3):02d}" if n % 3 else "sc",
            "Description": "MP-RAGE",
            "Acq Date": f"2005-0{n % 3 + 1}-15",
        }
        for n in range(scans)
    ]
    for row in rows:
        place = f"ADNI/{row['Subject']}/MP-RAGE/{row['Acq Date']}_10_00_00.0"
        (folder / place / row["Image Data ID"]).mkdir(parents=True)
    with open(folder / "scans.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    config = yaml.safe_load((ROOT / "config/adni.yaml").read_text())
    config["cohorts"] = {"adni": {"source": "adni", "table": "scans.csv", "images": "ADNI"}}
    return {**config, "device": "auto"}


CONFIGS = {
    "default": lambda _: yaml.safe_load((ROOT / "config.yaml").read_text()),
    "adni": archive,
    "all_methods": lambda _: yaml.safe_load((ROOT / "config/all_methods.yaml").read_text()),
    "benchmark_small": lambda _: yaml.safe_load((ROOT / "config/benchmark_small.yaml").read_text()),
    "external tests and apply": lambda _: with_external(),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_targets_pages_and_counts_agree_on_the_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = Plan.build(CONFIGS[name](tmp_path))
    runs, targets = plan.runs, Targets(plan).all(None)
    assert len(set(targets)) == len(targets)
    compared = {f"{run.folder}/distances.tsv" for run in runs.explained}
    assert compared
    assert compared == {path for path in targets if path.endswith("/distances.tsv")}
    shown = ReportJobs(plan).heatmap_files(None)
    assert compared == {path for path in shown if path.endswith("/distances.tsv")}
    work = count_work(plan)
    assert work["compare_methods"].jobs == len(compared)
    assert work["train_network"].jobs == len(runs.trainings)
    assert work["convert_series"].jobs >= sum(len(c.scans) for c in plan.cohorts.values())


def test_a_plan_is_immutable():
    plan = Plan.build(TINY)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.tasks = {}
    assert Targets(plan).all(None) == Targets(Plan.build(TINY)).all(None)


def test_a_job_gets_its_params_from_its_wildcards():
    plan = Plan.build(TINY)
    job = SimpleNamespace(cohort="tiny", task="AD-NC", model="rieke", split="fixed", seed="1")
    assert TrainJobs(plan).settings(job)["training"]["epochs"] == 2
    split = plan.splits["tiny"]["AD-NC"]["fixed"]
    members = SplitJobs(plan).members(job)
    assert [scan["image"] for scan in members] == [*split.train, *split.test]
    for key, pattern in (("volume", layout.STORED), ("quality", layout.QUALITY)):
        paths = SplitJobs(plan).files(pattern, "train", "test")(job)
        assert [scan[key] for scan in members] == paths


@pytest.mark.parametrize("seeds", [[1], [3, 1]])
def test_the_runs_of_a_cross_validation_are_those_of_its_files(seeds):
    splits = {**TINY["splits"], "repeats": 2}
    plan = Plan.build({**TINY, "splits": splits, "training": {"seeds": seeds}})
    job = SimpleNamespace(cohort="tiny", task="AD-NC", model="rieke")
    folds = TrainJobs(plan).folds(job)
    names = [(fold["repeat"], fold["fold"], fold["seed"]) for fold in folds]
    assert names == list(itertools.product((1, 2), (1, 2), seeds))
    assert [fold["history"] for fold in folds] == [
        f"results/tiny/AD-NC/rieke/repeat-{repeat}_fold-{fold}/seed-{seed}/history.tsv"
        for repeat, fold, seed in names
    ]


def test_a_baseline_knows_the_names_of_its_splits():
    job = SimpleNamespace(cohort="tiny", task="AD-NC", baseline="areas")
    stage = TrainJobs(Plan.build(TINY))
    members = stage.members_by_split(job)
    assert sorted(members) == ["fixed", "repeat-1_fold-1", "repeat-1_fold-2"]
    for name, path in members.items():
        assert path == f"results/tiny/AD-NC/splits/{name}_members.tsv"


def test_an_external_test_has_the_scans_of_the_other_cohort():
    plan = Plan.build(with_external())
    job = SimpleNamespace(cohort="tiny", task="AD-NC", split="external-other")
    sides = {scan["side"]: scan["cohort"] for scan in SplitJobs(plan).members(job)}
    assert sides == {"train": "", "test": "other"}
    assert not plan.splits["new"]["AD-NC"]
    kinds = [split.kind for split in plan.splits["tiny"]["AD-NC"].values()]
    assert kinds == ["folds", "folds", "fixed", "external"]


@pytest.mark.parametrize("kind", ["fixed", "folds", "external", "all"])
def test_only_splits_of_the_requested_kind_are_explained(kind):
    heatmaps = {**TINY["heatmaps"], "splits": kind}
    runs = Plan.build(with_external(heatmaps=heatmaps)).runs
    tiny = next(task for task in runs.tasks if task.cohort.name == "tiny")
    explained = {split.kind for split in tiny.explained}
    assert explained == ({"fixed", "folds", "external"} if kind == "all" else {kind})


def test_a_fault_of_the_splits_does_not_stop_preprocessing():
    plan = Plan.build({**FIRST, "splits": {**FIRST["splits"], "fixed_test_patients": 3}})
    assert "splits.fixed_test_patients is 3" in str(plan.fault)
    assert Targets(plan).preprocessed(None)
    job = SimpleNamespace(cohort="tiny")
    assert len(PreprocessJobs(plan).assessed(job)) >= 6
    for call in (lambda: plan.runs, lambda: Targets(plan).all(None)):
        with pytest.raises(SystemExit, match=r"splits.fixed_test_patients is 3"):
            call()


def test_a_gpu_is_required_only_where_jobs_run(monkeypatch):
    monkeypatch.setattr("voxplain_workflow.planning.checks.has_gpu", lambda: False)
    config = {**FIRST, "device": "cuda"}
    assert "device is cuda" in str(Plan.build(config).fault)
    assert Plan.build(config, local=False).fault is None


def test_a_method_is_counted_where_it_applies():
    config = {**TINY, "models": {"rieke": {}, "voxresnet_gap": {}}}
    plan = Plan.build({**config, "heatmaps": {"methods": list(METHODS)}})
    assert "cam" not in plan.methods.of("rieke")
    assert "cam" in plan.methods.of("voxresnet_gap")
    assert "summary" in plan.methods.of("rieke")
    only = Plan.build({**FIRST, "heatmaps": {"methods": ["sensitivity", "summary"]}})
    assert only.methods.summarised("rieke") == ["sensitivity"]


def test_faults_name_the_key():
    with pytest.raises(SetupFault, match=r"config: unknown key splits\.fold; did you mean folds"):
        Plan.build({**TINY, "splits": {"fold": 2}})


def test_every_pattern_has_only_wildcards_that_are_constrained():
    patterns = [value for value in vars(layout).values() if isinstance(value, str) and "{" in value]
    assert len(patterns) > 20
    known = layout.constraints().keys() | {"suffix", "baseline"}
    for pattern in patterns:
        names = {name for _, name, *_ in string.Formatter().parse(pattern) if name}
        assert names <= known, pattern


def test_no_rule_spells_a_path():
    for path in (ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")):
        assert not re.search(r'"(results|logs)\b', path.read_text()), path


def test_lists_fill_a_pattern_with_the_last_one_varying_fastest():
    job = SimpleNamespace(a="x", b=1)
    assert layout.each("{a}/{b}/{c}", job, b=[2, 3], c=["p", "q"]) == [
        *("x/2/p", "x/2/q", "x/3/p", "x/3/q")
    ]
    assert layout.each("{a}", {"a": 5}, c=[1, 2]) == ["5"]
    assert layout.fill("{a}{b}", job, b="y", unused=1) == "xy"


LONG = "x" * 5000


@pytest.mark.parametrize(
    "cohort",
    [
        {"source": "adni", "table": LONG, "images": "ADNI"},
        {"source": "adni", "table": "t.csv", "images": LONG},
        {"source": "bids", "images": LONG},
        {"source": "bids", "images": ".", "table": LONG},
        other(heads=[LONG]),
    ],
    ids=["table", "images", "dataset", "table of a dataset", "head"],
)
def test_a_path_that_no_system_takes_is_refused_in_one_short_line(tmp_path, monkeypatch, cohort):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("Image ID,Subject,Group,Visit\n1,a,AD,sc\n")
    with pytest.raises(
        SetupFault, match=r"^xxx.*xxx cannot be read \(File name too long\)$"
    ) as fault:
        Plan.build({**TINY, "cohorts": {"tiny": cohort}})
    assert len(str(fault.value)) < 200


def test_names_that_are_not_utf_8_do_not_reach_the_jobs(tmp_path):
    """Snakemake hands on what a job needs as text; the other scans are processed."""
    odd = os.fsdecode(b"M\xfcller")
    for place in (f"{odd}/I1", "a/I2", "b/I3"):
        (tmp_path / "ADNI" / place).mkdir(parents=True)
    (tmp_path / "ADNI" / "a" / f"{odd}_I2.xml").touch()
    table = tmp_path / "t.csv"
    table.write_text("Image ID,Subject,Group,Visit\n1,a,AD,sc\n2,b,AD,sc\n3,c,CN,sc\n4,d,AD,sc\n")
    (tmp_path / "ADNI/I4").mkdir()
    cohort = {"source": "adni", "table": str(table), "images": str(tmp_path / "ADNI")}
    plan = Plan.build({**TINY, "cohorts": {"tiny": cohort}})
    jobs = PreprocessJobs(plan)
    assert list(plan.cohorts["tiny"].scans) == ["I3", "I4"]
    asked = SimpleNamespace(cohort="tiny", image="I3")
    assert str([jobs.source(asked), jobs.conversion(asked), jobs.rows(asked)]).encode()
    lost = [row["reason"] for row in unshield(jobs.rows(asked)) if row.get("fate") == "failed"]
    assert [
        f"M\\xfcller{rest} is not UTF-8" in reason
        for rest, reason in zip(("/I1", "_I2.xml"), lost, strict=True)
    ] == [True, True]
