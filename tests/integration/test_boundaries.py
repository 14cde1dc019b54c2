"""Which modules may import which, and which frameworks each phase loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PHASES = sorted(path.parent.name for path in (ROOT / "components").glob("*/component.py"))
WITH_KERAS = {"train_classifier", "train_features", "train_gan", "generate_images", "evaluate"}
SHARED_WITH_KERAS = {"batch_statistics.py", "features.py", "keras_setup.py", "layers.py", "precision.py"}
COMPILED = ("component.py", "container_images.py", "placement.py")
"""Read when the pipeline is compiled, not by a running phase."""
MAY_IMPORT = {"check_inputs": "prepare_data"}
"""Phase → the one whose logic it calls: the first task makes a check of the second, before anything is trained."""
MAX_FUNCTION_LINES = 60
"""Of the phase with the most code; signature and docstring included."""
LOGIC = sorted(p for p in (ROOT / "components").rglob("*.py") if p.name not in COMPILED)


def imported(path: Path, top_level_only: bool = False) -> set[str]:
    """Dotted names that a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def uses(names: set[str], package: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for name in names)


@pytest.mark.parametrize("path", LOGIC, ids=lambda path: str(path.relative_to(ROOT)))
def test_logic_imports_neither_kfp_nor_other_phases_and_reads_no_environment(path: Path):
    names = imported(path)
    own = path.relative_to(ROOT / "components").parts[0]
    assert not uses(names, "kfp")
    assert not uses(names, "counterweight")
    for phase in PHASES:
        if phase not in (own, MAY_IMPORT.get(own)):
            assert not uses(names, f"components.{phase}"), f"{path} imports the phase {phase}"
    stores = ROOT / "components/shared/stores"
    assert uses(names, "google") == (path == stores / "gcs.py")
    assert uses(names, "obstore") == (path == stores / "s3_azure.py")
    text = path.read_text(encoding="utf-8")
    if path in (stores / "access.py", ROOT / "components/shared/machine_limits.py"):
        return
    assert "environ" not in text.replace("environment", "")
    assert "getenv" not in text


@pytest.mark.parametrize("phase", PHASES)
def test_component_imports_only_kfp_and_images(phase: str):
    names = imported(ROOT / "components" / phase / "component.py", top_level_only=True)
    kfp = {"kfp", "kfp.dsl", "components.container_images", "components.container_images.image"}
    assert names - {"typing", "typing.NamedTuple"} == kfp


def test_pipeline_imports_only_components():
    names = {name for name in imported(ROOT / "pipeline.py") if name.startswith("components.")}
    names = {name for name in names if not name.startswith("components.placement")}
    assert {name.split(".")[1] for name in names} == set(PHASES)
    assert all(name.split(".")[2] == "component" for name in names)


@pytest.mark.parametrize(
    "module",
    [
        "balance_dataset.balance",
        "check_inputs.check",
        "notify.notify",
        "prepare_data.prepare",
        "prepare_data.profile",
        "publish.publish",
    ],
)
def test_phase_that_does_not_train_loads_no_framework(module: str):
    code = f"import sys, components.{module}; print(sorted({{'keras', 'tensorflow', 'jax', 'kfp'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_phases_that_train_or_predict_import_keras():
    for path in LOGIC:
        own = path.relative_to(ROOT / "components").parts[0]
        if uses(imported(path), "keras") or uses(imported(path), "tensorflow"):
            assert own in WITH_KERAS or (own == "shared" and path.name in SHARED_WITH_KERAS), path


def test_functions_of_evaluate_have_at_most_sixty_lines():
    lengths = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in (ROOT / "components" / "evaluate").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert len(lengths) > 100
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


@pytest.mark.parametrize("phase", PHASES)
def test_image_has_the_clients_of_object_storage_only_if_the_phase_uses_them(phase: str):
    folder = ROOT / "components" / phase
    groups = (folder / "Dockerfile").read_text(encoding="utf-8").splitlines()[1].split()
    names = {name for path in folder.rglob("*.py") for name in imported(path)}
    assert ("storage" in groups) == any(
        uses(names, f"components.shared.{name}") for name in ("storage", "data_identity")
    )
