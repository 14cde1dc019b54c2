"""Run the benchmarks and write build/bench.json: `python -m benchmarks [DATA=folder]`.

Each compares with the physical limit or the usual alternative, in one run on one machine. Speeds drift on shared
machines: the two sides of a ratio are measured alternately, and the median of the rounds is reported.
"""

import json
import os
import statistics
import sys
from pathlib import Path

from benchmarks import evaluate, reading, speed
from benchmarks.machine import machine
from components.shared.errors import exit_on_user_error
from counterweight.parameters import assignments, words

ROUNDS = 3
OUT = Path("build/bench.json")


def main() -> None:
    """Measure and print."""
    given = assignments(words(sys.argv[1:]))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    results = {
        "machine": machine(),
        **reading.measure(given.get("DATA", "demo")),
        "evaluate": {"seconds": round(statistics.median(evaluate.seconds() for _ in range(ROUNDS)), 1)},
        **speed.measure(),
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    with exit_on_user_error():
        main()
