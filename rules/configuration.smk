"""Checks of the configuration's files, of which Snakemake keeps the values alone."""

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

# By this file's place: where voxplain is a module, workflow.basedir is the other workflow's. All that
# is included after this file imports from there too.
sys.path.insert(0, str(Path(str(workflow.current_basedir)).parent / "scripts"))

from voxplain.faults import SetupFault
from voxplain_workflow.planning.config_files import check_config_files

# With --directory, a config.yaml there comes first.
DEFAULT_CONFIG = (
    "config.yaml" if Path("config.yaml").exists() else f"{workflow.basedir}/config.yaml"
)

# A module's are the other workflow's, and a job's were checked before.
if workflow.is_main_process and not workflow.modifier.skip_configfile:
    try:
        # Snakemake has read those of --configfile already.
        check_config_files(workflow.overwrite_configfiles or [DEFAULT_CONFIG])
    except SetupFault as fault:
        raise WorkflowError(str(fault)) from None
