"""How every command here ends."""

import contextlib
import signal
import sys
from collections.abc import Callable

from components.shared.errors import EXIT_USER, as_user_error

EXIT_INTERRUPTED = 130


def command(do: Callable[[], int | None]) -> int:
    """Runs a command and returns its exit code: what it gives, 2 and a sentence for a user's mistake, 130 when it was
    interrupted or terminated. A bug keeps its traceback."""

    def interrupted(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, interrupted)
    try:
        return do() or 0
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:
        mistake = as_user_error(error)
        if mistake is None:
            raise
        print(f"error: {mistake}", file=sys.stderr)
        return EXIT_USER
