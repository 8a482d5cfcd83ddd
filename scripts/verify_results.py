"""Check that the results are as the jobs that made them left them."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    from voxplain.faults import SetupFault
    from voxplain_workflow.jobs.digests import RECORDS, find_damage

    damages, number = find_damage(snakemake.params.temporary)
    if damages:
        outputs = dict.fromkeys(damage.output for damage in damages)
        raise SetupFault(
            f"{len(damages)} of {number} results are not as they were written:\n"
            + "\n".join(f"{damage.path}: {damage.problem}" for damage in damages)
            + "\nTo make these again, run again with\n--forcerun "
            + " ".join(outputs)
        )
    if not number:
        raise SetupFault(
            f"{RECORDS} has no digests: nothing here was made by this version or later"
        )
    print(f"{number} results are as they were written.")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
