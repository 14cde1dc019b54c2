"""Exit codes and signal handling of every command."""

import contextlib
import signal
import sys
from collections.abc import Callable

from components.shared.errors import ExitCode, as_user_error


def run_command(action: Callable[[], int | None]) -> int:
    """Run a command and return its exit code (see `ExitCode`).

    A user error prints its `error:` and `hint:` lines; a bug keeps its traceback.
    """

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, interrupt)
    try:
        return action() or ExitCode.SUCCEEDED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:
        user_error = as_user_error(error)
        if user_error is None:
            raise
        print(user_error.lines(), file=sys.stderr)
        return user_error.exit_code
