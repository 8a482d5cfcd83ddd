"""Jobs of conversion, preprocessing and quality control."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from voxplain.cohort.trees import split_zip
from voxplain.cohort.twins import twin_image
from voxplain_workflow.planning import layout
from voxplain_workflow.planning.settings import skull_settings, sort_keys
from voxplain_workflow.planning.stages.stage import Stage
from voxplain_workflow.records import as_params
from voxplain_workflow.records.scans import ConvertedScan
from voxplain_workflow.texts import shield

# Columns of scans.tsv that are known before anything is processed.
_KNOWN = (
    *("image", "subject", "session", "visit", "date", "diagnosis", "group", "progression"),
    *("sex", "age", "description", "phase", "field_strength"),
)
# Minutes: three to five times the time of a slow core at 1 mm. A group of jobs requests the sum,
# and many sites allow a day.
_REGISTRATION_MINUTES = {"affine": 10, "syn_fast": 10, "syn_quick": 20, "syn": 240}


class PreprocessJobs(Stage):
    """The jobs of ``rules/convert.smk``, ``rules/preprocess.smk`` and ``rules/quality.smk``."""

    def source(self, wildcards: Any) -> list[str]:
        """The folder or file of one scan, and the files that belong to it.

        Snakemake reads braces in a name as wildcards, and they cannot be quoted. If a name has
        braces, the folder above it is returned instead.
        """
        scan = self.cohort_of(wildcards).scan_of(wildcards.image)
        is_header = scan.place.lower().endswith(".hdr")
        pair = [scan.place[:-4] + ending for ending in (".img", ".IMG")] if is_header else []
        files = [scan.place, *scan.companions, *(path for path in pair if Path(path).is_file())]
        return list(dict.fromkeys(_above_braces(split_zip(path)[0]) for path in files))

    def conversion(self, wildcards: Any) -> dict[str, Any]:
        """Settings of a scan's conversion, paths of its files, and their entries in the table."""
        cohort = self.cohort_of(wildcards)
        scan = cohort.scan_of(wildcards.image)
        return sort_keys(
            {
                **self.plan.settings["conversion"],
                "subject": scan.subject,
                "description": scan.description,
                "nan_outside": cohort.is_given("brains"),
                "place": scan.place,
                "companions": list(scan.companions),
            }
        )

    def converted(self, wildcards: Any) -> list[dict[str, Any]]:
        """Records of all scans that were converted earlier, see :class:`ConvertedScan`."""
        scans = (
            ConvertedScan(
                image=scan.image,
                place=scan.place,
                companions=list(scan.companions),
                digests=cohort.file(layout.DIGESTS, scan.image),
                volume=cohort.file(layout.T1W, scan.image),
            )
            for cohort in self.plan.cohorts.values()
            for scan in cohort.scans.values()
        )
        return as_params(scan for scan in scans if Path(scan.digests).is_file())

    @property
    def may_use_fsl(self) -> bool:
        """Whether BET may run. Only then is FSL installed, which is not free for all users."""
        return self.plan.settings["skull"]["tool"] != "deepbet"

    def skull(self, wildcards: Any) -> dict[str, Any]:
        """Options of the skull-stripping tools that may run; none for skull-stripped input."""
        given = self.cohort_of(wildcards).is_given("brains")
        return {"given": {}} if given else skull_settings(self.plan.settings)

    def correction(self, wildcards: Any) -> dict[str, Any]:
        """Settings of the intensity correction, and the scan's description in the table."""
        description = self.cohort_of(wildcards).scan_of(wildcards.image).description
        section = self.section("bias_correction", "intensity_scale")
        return {**section, "description": description}

    @property
    def template(self) -> dict[str, Any]:
        """Settings of the template and the resolution of its grid."""
        return self.section("template", "resolution_mm")

    def registration(self, wildcards: Any) -> dict[str, Any]:
        """Settings of the registration, and the resolution of the template's grid."""
        settings = dict(self.plan.settings["registration"])
        settings["resolution_mm"] = self.plan.settings["resolution_mm"]
        if self.cohort_of(wildcards).is_given("registered"):
            settings["transform"] = "none"
        return dict(sorted(settings.items()))

    @property
    def registration_minutes(self) -> int:
        """Minutes that a registration requests."""
        return _REGISTRATION_MINUTES[self.plan.settings["registration"]["transform"]]

    def quality(self, wildcards: Any) -> dict[str, Any]:
        """Thresholds of quality control, and whether this scan is kept regardless of them."""
        section = self.plan.settings["quality"]
        thresholds = {key: value for key, value in section.items() if key != "keep"}
        return sort_keys({"thresholds": thresholds, "kept": wildcards.image in section["keep"]})

    def assessed(self, wildcards: Any) -> list[str]:
        """Quality and pictures of every processed scan, and its ground truth in template space.

        The ground truth covers all scans with a disease or a shortcut, not only those that are
        explained: if intermediate volumes are not kept, the transform and the inputs of pictures
        are deleted later. One picture stands for both, which one job draws.
        """
        cohort = self.cohort_of(wildcards)
        # Without splits nothing is explained, and no twin is needed.
        twinned = {} if self.plan.fault else self.plan.runs.twinned
        paths = []
        for image in cohort.scans:
            files = [layout.QUALITY, layout.MASK_PICTURE]
            files += [layout.TRUTH] * cohort.has_truth(image)
            files += [layout.RESIDUAL] * (image in twinned.get(cohort.name, ()))
            paths += [path for file in files for path in cohort.files(file, [image])]
        return paths

    def qualities(self, wildcards: Any) -> dict[str, str]:
        """Image id to the JSON file of quality control, for every processed scan."""
        cohort = self.cohort_of(wildcards)
        return {image: cohort.file(layout.QUALITY, image) for image in cohort.scans}

    def pictures(self, wildcards: Any) -> dict[str, dict[str, str]]:
        """Image id to the pictures of the mask and the registration of every processed scan."""
        cohort = self.cohort_of(wildcards)
        patterns = {"mask": layout.MASK_PICTURE, "registration": layout.REGISTRATION_PICTURE}
        return {
            image: {name: cohort.file(pattern, image) for name, pattern in patterns.items()}
            for image in cohort.scans
        }

    def rows(self, wildcards: Any) -> str:
        """Rows of the cohort's table as shielded text: the columns known before processing."""
        cohort, rows = self.cohort_of(wildcards), []
        for scan in cohort.all_scans:
            row = {key: getattr(scan, key) for key in _KNOWN}
            if scan.fate is None:
                path = layout.PREPROCESSED.format(**cohort.entities(scan))
                row["preprocessed"] = path.removeprefix(
                    f"{layout.COHORT.format(cohort=cohort.name)}/"
                )
            else:
                fate = scan.fate.as_dict()
                row |= {"fate": fate.pop("status"), **fate}
            rows.append(row)
        return shield(rows)

    def unlisted(self, wildcards: Any) -> str:
        """Images in the cohort's folders that are not in its table, as shielded text."""
        return shield(list(self.cohort_of(wildcards).unlisted))

    def twin_file(self, suffix: str) -> Callable[[Any], str]:
        """Input function: a file of a scan's healthy twin."""

        def path(wildcards: Any) -> str:
            pattern = layout.scan_file(suffix)
            return layout.fill(pattern, wildcards, image=twin_image(wildcards.image))

        return path


def _above_braces(path: str) -> str:
    """The path, or the parent folder of its first name with a brace."""
    if "{" not in path:
        return path
    parts = Path(path).parts
    return str(Path(*parts[: next(n for n, part in enumerate(parts) if "{" in part)]))
