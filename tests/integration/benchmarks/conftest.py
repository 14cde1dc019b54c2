from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks.fewer_lesions import LARGEST, TABLE


@pytest.fixture
def ham10000(tmp_path: Path) -> tuple[Path, pd.DataFrame]:
    """A folder of 120 images of 60 lesions and three classes, as HAM10000 has them, and its table."""
    folder = tmp_path / "ham"
    folder.mkdir()
    table = pd.DataFrame({"lesion_id": [f"L{n // 2}" for n in range(120)], "image_id": [f"I{n}" for n in range(120)]})
    table["dx"] = np.repeat([LARGEST, "mel", "df"], 40)
    table.to_csv(folder / TABLE, index=False)
    for name in table["image_id"]:
        Image.new("RGB", (8, 8)).save(folder / f"{name}.jpg")
    return folder, table
