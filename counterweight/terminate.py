"""Ends a run: `python -m counterweight.terminate RUN=id`. The API is where `counterweight/client.py` says.

Exit codes: 0 the run was told to end, or has ended already; 2 something that the user can mend; 5 API not reachable or
not allowed.
"""

import os
import sys
from typing import TextIO

from counterweight import parameters
from counterweight.client import Api, RejectedError
from counterweight.exit_codes import run_command
from counterweight.logs import ENDS, get_run, options


def run(words: list[str], out: TextIO) -> int:
    """Does what the command asks for and returns the exit code."""
    run_id = options(words, "RUN")["RUN"]
    api = Api(os.environ)
    before = get_run(api, run_id)
    if before.state not in ENDS:
        try:
            api.call(api.runs.run_service_terminate_run, run_id)
        except RejectedError:  # it ended meanwhile, or an earlier attempt of ours was heard
            if get_run(api, run_id).state not in (*ENDS, "CANCELING"):
                raise
    after = get_run(api, run_id)
    said = "had ended before" if before.state in ENDS else "was told to end"
    print(f"{run_id} {said}: {(after.state or 'unknown').lower()}", file=out)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(lambda: run(parameters.words(sys.argv[1:]), sys.stdout)))
