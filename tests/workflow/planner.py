"""Plans workflows in forks of a process that has imported Snakemake: half of a dry run's time.

Reads a line of JSON for each, with the ``arguments`` of the command line and the file that takes
what is ``said``, and answers with the exit status.
"""

import json
import os
import sys
import traceback

from snakemake.cli import main


def plan(arguments, said):
    """Be the process of one `snakemake` command."""
    told = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(told, stream)
    sys.argv = ["snakemake", *arguments]
    status = 0
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            plan(**asked)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
