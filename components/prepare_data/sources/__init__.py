"""Sources of raw data, one module each. Every source yields a folder in the Kaggle layout of HAM10000.

A source is a module with `handles(data) -> bool` and `fetch(data, scratch) -> Path`; the first that handles the value
of the parameter `data` is used.
"""

from pathlib import Path

from components.prepare_data.sources import bucket, demo, folder, kaggle

SOURCES = (demo, kaggle, bucket, folder)


def fetch(data: str, scratch: Path) -> Path:
    """Return the local folder that contains the raw data.

    Args:
        data: `demo`, `kaggle`, an address of object storage, or a folder.
        scratch: an empty folder for generated or downloaded files.

    Raises:
        UserError: the data does not exist or cannot be read.
    """
    return next(source for source in SOURCES if source.handles(data)).fetch(data, scratch)
