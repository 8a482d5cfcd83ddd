"""Checks of the configuration's files, of which Snakemake keeps the values alone."""

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(str(workflow.current_basedir)).parent / "scripts"))

from voxplain.faults import SetupFault
from voxplain_workflow.planning.config_files import check_config_files


def checked(path):
    """The path of a configuration's file, if Snakemake can read it as it is meant."""
    try:
        check_config_files([path])
    except SetupFault as fault:
        raise WorkflowError(str(fault)) from None
    return path


# Those of --configfile, which Snakemake has read already. A module's are the other workflow's.
if workflow.is_main_process and not workflow.modifier.skip_configfile:
    for path in workflow.overwrite_configfiles:
        checked(path)
