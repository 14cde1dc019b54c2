"""Results of an experiment, as JSON and images that are small enough for the repository."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.experiment import RECIPES, Scale
from benchmarks.machine import machine
from components.evaluate.statistics.metrics import SCALARS
from components.shared.arms import AUGMENTED, BASELINE, CONTROL
from components.shared.files import write_text
from scripts.results_tables import write_sheet

SHOWN = 8
OF_GAN = ("kimg", "best_kimg", "seconds", "precision", "rolled_back_kimg", "failed")
OF_IMAGES = ("images", "drawn", "kid", "density", "coverage", "texture", "copies", "curated")


def _gans(folder: Path) -> dict[str, Any]:
    """Return for each class its KID at each snapshot, the lowest KID, the training time and its images' quality."""
    found: dict[str, dict[str, Any]] = {}
    path = folder / "start" / "models" / "shared.json"
    shared = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    # A class's share of the shared GAN's budget and time.
    before = {key: shared.get(key, 0.0) / len(shared.get("trained_on", "1")) for key in ("kimg", "seconds")}
    for path in sorted((folder / "gans" / "models").glob("gan-*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        found[record["dx"]] = {key: record[key] for key in OF_GAN if key in record}
        if "kid" in record:
            curve = {"kimg": record["kid"]["kimg"], "value": record["kid"]["value"]}
            found[record["dx"]] |= {"kid": min(curve["value"]), "curve": curve, "before": before}
    for path in sorted((folder / "synthetic" / "synthetic").glob("*.json")):
        measured = json.loads(path.read_text(encoding="utf-8"))
        found[measured["dx"]]["images"] = {key: measured[key] for key in OF_IMAGES if key in measured}
    return found


def _effect(folder: Path) -> dict[str, Any]:
    """Return the effect of the images on the test lesions."""
    results = json.loads((folder / "results" / "metrics.json").read_text(encoding="utf-8"))
    figures = {f"gan_effect_{key}": results["effect"][key] for key in ("value", "low", "high")}
    shown = {BASELINE: BASELINE, CONTROL: CONTROL, results["effect"]["arm"]: AUGMENTED}
    figures |= {f"{title}_{name}": results["arms"][arm][name] for arm, title in shown.items() for name in SCALARS}
    return {"verdict": results["verdict"]} | {name: value for name, value in figures.items() if value is not None}


def _curves(gans: dict[str, dict[str, Any]], path: Path) -> None:
    """Plot KID over images shown and over time, a column per class; both include the share of the shared GAN."""
    from matplotlib.figure import Figure

    classes = sorted({dx for of_recipe in gans.values() for dx in of_recipe})
    figure = Figure((2.6 * len(classes) + 1, 4.6), layout="constrained")
    axes = figure.subplots(2, len(classes), squeeze=False)
    lines: dict[str, Any] = {}
    for column, dx in enumerate(classes):
        for recipe, of_recipe in gans.items():
            one = of_recipe.get(dx, {})
            if "curve" not in one:
                continue
            kimg, before = np.asarray(one["curve"]["kimg"]), one["before"]
            minutes = (before["seconds"] + kimg / one["kimg"] * one["seconds"]) / 60
            for row, x in ((0, before["kimg"] + kimg), (1, minutes)):
                colour = f"C{list(gans).index(recipe)}"
                lines[recipe] = axes[row, column].plot(x, one["curve"]["value"], color=colour, linewidth=1.2)[0]
        axes[0, column].set_title(dx, fontsize=9)
        axes[0, column].set_xlabel("kimg", fontsize=8)
        axes[1, column].set_xlabel("minutes", fontsize=8)
    for axis in axes.flat:
        axis.tick_params(labelsize=7)
    for row in axes:
        row[0].set_ylabel("KID", fontsize=8)
    figure.legend(lines.values(), lines, loc="outside right upper", fontsize=7)
    figure.savefig(path, dpi=110)


def write(name: str, scale: Scale, data: str, rare: list[str], work: Path, out: Path, speed: dict[str, Any]) -> None:
    """Write `<name>.json`, `<name>-kid.png` and for each recipe `<name>-<recipe>.jpg` into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    gans = {recipe: _gans(work / recipe) for recipe in RECIPES}
    found = {
        "scale": {"name": name} | asdict(scale),
        "machine": machine(),
        "data": data,
        "rare_classes": rare,
        "speed": speed,
        "gans": gans,
        "effect": {recipe: _effect(work / recipe) for recipe in RECIPES},
        "seconds": {
            path.stem: json.loads(path.read_text(encoding="utf-8"))["seconds"]
            for path in sorted((work / "done").glob("*.json"))
        },
    }
    _curves(gans, out / f"{name}-kid.png")
    for recipe in RECIPES:
        write_sheet(work / recipe / "synthetic" / "synthetic", out / f"{name}-{recipe}.jpg", SHOWN)
    write_text(out / f"{name}.json", json.dumps(found, indent=1) + "\n")
