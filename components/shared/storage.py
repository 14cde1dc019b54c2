"""Object storage: the only place that imports google-cloud-storage."""

import errno
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from components.shared.errors import UserError
from components.shared.progress import Progress

TIMEOUT_S = 10
"""How long one attempt at a request may hear nothing."""
DEADLINE_S = 15
"""How long a request is tried again before it counts as failed; the last attempt may take TIMEOUT_S more."""
DOWNLOADS = 8
"""At a time: the client keeps up to ten connections."""


def split_uri(uri: str) -> tuple[str, str]:
    """`gs://bucket/some/prefix` as (`bucket`, `some/prefix`).

    Raises:
        UserError: it is not of that form.
    """
    bucket, _, prefix = uri.removeprefix("gs://").partition("/")
    if not uri.startswith("gs://") or not bucket:
        raise UserError(f"{uri} is not an object storage address; write gs://bucket/prefix.")
    return bucket, prefix.strip("/")


def _stays_below(name: str) -> bool:
    """Whether an object's name can be a file's below a folder: another chose it, and one with `..` would leave it."""
    path = PurePosixPath(name)
    is_a_file = path.parts and not name.endswith("/")  # a "folder" is an object with a slash at its end
    return bool(is_a_file and not path.is_absolute() and ".." not in path.parts and "\0" not in name)


def download_folder(uri: str, folder: Path) -> None:
    """Downloads all objects below a prefix into a folder, several at a time, each checked against its checksum.

    Raises:
        UserError: no such bucket, no permission, no credentials, no connection, or nothing below the prefix.
    """
    import requests
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError, TransportError
    from google.cloud.storage import Blob, Client
    from google.cloud.storage.exceptions import DataCorruption
    from google.cloud.storage.retry import DEFAULT_RETRY

    bucket, prefix = split_uri(uri)
    retry = DEFAULT_RETRY.with_timeout(DEADLINE_S)
    below = f"{prefix}/" if prefix else ""

    def download(blob: Blob) -> None:
        path = folder / blob.name.removeprefix(below)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            blob.download_to_filename(str(path), retry=retry, timeout=TIMEOUT_S)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
                raise
            raise UserError(
                f"{uri}: {blob.name[:80]} can't become a file here ({error.strerror}); rename it."
            ) from error

    try:
        blobs = Client().list_blobs(bucket, prefix=below, retry=retry, timeout=TIMEOUT_S)
        wanted = [blob for blob in blobs if _stays_below(blob.name.removeprefix(below))]
        progress = Progress(f"prepare_data {uri}", len(wanted), "files")
        # Not the client's own `download_many`: where one download fails, it goes on to try all the others.
        with ThreadPoolExecutor(DOWNLOADS) as pool:
            for done, _ in enumerate(pool.map(download, wanted), start=1):
                progress.update(done)
    except (exceptions.NotFound, exceptions.BadRequest) as error:
        raise UserError(f"{uri}: not found; check the bucket's name and the prefix.") from error
    except (exceptions.Forbidden, exceptions.Unauthorized) as error:
        raise UserError(
            f"{uri}: no permission to read; give this account the role Storage Object Viewer on the bucket."
        ) from error
    except (
        exceptions.GoogleAPICallError,
        exceptions.RetryError,
        requests.RequestException,
        TransportError,
        DataCorruption,
    ) as error:
        reason = type(getattr(error, "cause", None) or error).__name__
        raise UserError(
            f"{uri}: object storage did not answer as it should ({reason}); check the network and run the same "
            "command again."
        ) from error
    except GoogleAuthError as error:
        raise UserError(
            f"{uri}: no valid Google credentials were found; run `gcloud auth application-default login`, or use "
            "Workload Identity."
        ) from error
    if not wanted:
        raise UserError(f"{uri}: nothing stands below this prefix; check its spelling.")
