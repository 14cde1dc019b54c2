"""Phase → image reference, pinned when the pipeline is compiled.

The tag is a hash of what the image consists of: the folders that the phase's Dockerfile copies, the lock file and the
base in `docker/`. So the reference, which is part of the key of Kubeflow's cache, changes exactly when the code does.
"""

import hashlib
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASE = ("docker/Dockerfile", "docker/install.sh", "uv.lock")
"""Files that are part of every image."""


PHASE_OF = {"pretrain_gan": "train_gan", "read_other_data": "prepare_data", "read_champion": "publish"}
"""Task → the phase whose image and placement it uses, if the names differ."""


def content(phase: str, root: Path = ROOT) -> str:
    """Return a hash of everything that a phase's image consists of, as 16 hexadecimal digits.

    Args:
        phase: name of the phase.
        root: the checkout, or a copy of it.
    """
    digest = hashlib.sha256()
    copied = re.findall(
        r"^COPY (components/\w+) ", (root / "components" / phase / "Dockerfile").read_text(), re.MULTILINE
    )
    folders = [root / name for name in sorted({*copied, f"components/{phase}"})]
    files = [
        path for folder in folders for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    for path in [*sorted(files), *(root / name for name in BASE)]:
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def repository(phase: str) -> str:
    """Return the name of a phase's images, without tag."""
    return f"counterweight/{phase.replace('_', '-')}"


def image(phase: str, root: Path = ROOT) -> str:
    """Return the image reference of a phase, `counterweight/<phase>:<hash>`; see `content`."""
    return f"{repository(phase)}:{content(phase, root)}"
