"""Object storage: the only place that imports google-cloud-storage."""

from pathlib import Path, PurePosixPath

from components.shared.errors import UserError
from components.shared.progress import Progress

DEADLINE_S = 30
"""How long one request is tried again before it counts as failed."""


def split_uri(uri: str) -> tuple[str, str]:
    """`gs://bucket/some/prefix` as (`bucket`, `some/prefix`).

    Raises:
        UserError: it is not of that form.
    """
    bucket, _, prefix = uri.removeprefix("gs://").partition("/")
    if not uri.startswith("gs://") or not bucket:
        raise UserError(f"{uri} is not an object storage address; write gs://bucket/prefix.")
    return bucket, prefix.strip("/")


def download_folder(uri: str, folder: Path) -> None:
    """Downloads all objects below a prefix into a folder, several at a time, each checked against its checksum.

    Raises:
        UserError: no such bucket, no permission, no credentials, no connection, or nothing below the prefix.
    """
    import requests
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage import Client, transfer_manager
    from google.cloud.storage.retry import DEFAULT_RETRY

    bucket, prefix = split_uri(uri)
    retry = DEFAULT_RETRY.with_timeout(DEADLINE_S)
    below = f"{prefix}/" if prefix else ""
    try:
        client = Client()
        blobs = client.list_blobs(bucket, prefix=below, retry=retry, timeout=DEADLINE_S)
        wanted = []
        for blob in blobs:
            name = PurePosixPath(blob.name.removeprefix(below))
            # A name is another's input: one with `..` in it would leave the folder.
            if blob.name.endswith("/") or name.is_absolute() or ".." in name.parts:
                continue
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            wanted.append((blob, str(path)))
        progress = Progress(f"prepare_data {uri}", len(wanted), "files")
        for done in range(0, len(wanted), 256):
            transfer_manager.download_many(
                wanted[done : done + 256],
                worker_type=transfer_manager.THREAD,
                raise_exception=True,
                download_kwargs={"retry": retry, "timeout": DEADLINE_S},
            )
            progress.update(min(done + 256, len(wanted)))
    except exceptions.NotFound as error:
        raise UserError(f"{uri}: not found; check the bucket's name and the prefix.") from error
    except (exceptions.Forbidden, exceptions.Unauthorized) as error:
        raise UserError(
            f"{uri}: no permission to read; give this account the role Storage Object Viewer on the bucket."
        ) from error
    except GoogleAuthError as error:
        raise UserError(
            f"{uri}: no Google credentials were found; run `gcloud auth application-default login`, or use Workload Identity."
        ) from error
    except (exceptions.GoogleAPICallError, exceptions.RetryError, requests.RequestException) as error:
        raise UserError(
            f"{uri}: object storage did not answer ({type(error).__name__}); check the network and run the same command again."
        ) from error
    if not wanted:
        raise UserError(f"{uri}: nothing stands below this prefix; check its spelling.")
