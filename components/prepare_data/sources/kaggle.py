"""Download HAM10000 from Kaggle with the official client."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.shared.errors import UserError, as_user_error
from components.shared.log import log_line

DATASET = "kmader/skin-cancer-mnist-ham10000"

TIMEOUT_S = 60.0
"""Seconds without an answer after which the download fails; the client has no limit."""


def handles(data: str) -> bool:
    """Handle the value `kaggle`."""
    return data == "kaggle"


def fetch(data: str, scratch: Path) -> Path:
    """Download and unpack the dataset (5 GB on disk) and return the folder.

    Raises:
        UserError: there are no credentials, or the download failed.
    """
    printed = io.StringIO()
    try:
        # Without credentials, the client prints advice and may exit the process.
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            from kaggle.api.kaggle_api_extended import KaggleApi

            api = KaggleApi()
            api.authenticate()
    except (Exception, SystemExit) as error:
        raise UserError(
            "no Kaggle credentials found",
            "create an API token in the settings on kaggle.com and save it as ~/.kaggle/kaggle.json, "
            "or set KAGGLE_USERNAME and KAGGLE_KEY; then rerun the command",
            "kaggle.no_credentials",
        ) from error
    log_line("prepare_data", f"downloading {DATASET} from Kaggle")
    try:
        with contextlib.redirect_stdout(printed), _time_limit(TIMEOUT_S):
            api.dataset_download_files(DATASET, path=str(scratch), unzip=True, quiet=True)
    except Exception as error:
        # A full disk has its own message.
        raise as_user_error(error) or UserError(
            f"downloading {DATASET} from Kaggle failed ({type(error).__name__})",
            "check the network and the token, then rerun the command",
            "kaggle.download_failed",
        ) from error
    return scratch


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Limit how long requests of this process that have no limit wait for an answer."""
    import requests

    send = requests.Session.send

    def send_with_limit(self: Any, request: Any, **options: Any) -> Any:
        return send(self, request, **options | {"timeout": options.get("timeout") or seconds})

    requests.Session.send = send_with_limit
    try:
        yield
    finally:
        requests.Session.send = send
