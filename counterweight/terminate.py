"""Cancel a run."""

import os
from typing import TextIO

from components.shared.workflow import CANCELLING
from counterweight.client import Api, RejectedError
from counterweight.logs import EXIT_CODES, get_run, options, state_of


def run(words: list[str], out: TextIO) -> int:
    """Run the command and return its exit code."""
    run_id = options(words)["RUN"]
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
