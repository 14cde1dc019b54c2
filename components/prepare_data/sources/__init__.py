"""Where raw data comes from: one file for each kind. Every source ends as a folder in the Kaggle layout of HAM10000.

A source is a module with `handles(data) -> bool` and `fetch(data, scratch) -> Path`; the first that handles the value
of the parameter `data` is taken.
"""

from pathlib import Path

from components.prepare_data.sources import demo, folder, gcs, kaggle

SOURCES = (demo, kaggle, gcs, folder)


def fetch(data: str, scratch: Path) -> Path:
    """The local folder that holds the raw data.

    Args:
        data: `demo`, `kaggle`, `gs://bucket/prefix` or a folder.
        scratch: an empty folder for what has to be drawn or downloaded.

    Raises:
        UserError: there is no such data, or it can't be reached.
    """
    return next(source for source in SOURCES if source.handles(data)).fetch(data, scratch)
