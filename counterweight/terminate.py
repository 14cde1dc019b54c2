"""Cancel a run: `python -m counterweight.terminate RUN=id`. See `counterweight/client.py` for the API's variables.

Exit codes: 0 the run is cancelled or had finished, 2 invalid input, 5 API unreachable or access denied.
"""

import os
import sys
from typing import TextIO

from components.shared.workflow import CANCELLING
from counterweight import parameters
from counterweight.client import Api, RejectedError
from counterweight.exit_codes import run_command
from counterweight.logs import EXIT_CODES, get_run, options, state_of


def run(words: list[str], out: TextIO) -> int:
    """Run the command and return its exit code."""
    run_id = options(words, "RUN")["RUN"]
    api = Api(os.environ)
    before = state_of(get_run(api, run_id))
    if before not in EXIT_CODES:
        try:
            api.call(api.runs.run_service_terminate_run, run_id)
        except RejectedError:  # it finished meanwhile, or an earlier attempt succeeded
            if state_of(get_run(api, run_id)) not in (*EXIT_CODES, CANCELLING):
                raise
    after = state_of(get_run(api, run_id))
    print(f"{run_id} {'had finished' if before in EXIT_CODES else 'is being cancelled'}: {after}", file=out)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(lambda: run(parameters.words(sys.argv[1:]), sys.stdout)))
