import subprocess
import sys

import pytest

START = """
import sys
from counterweight.keras_start import start_keras
{before}
start_keras()
import keras
print(keras.backend.backend())
print("an own message", file=sys.stderr)
"""


def test_start_keras_prints_nothing():
    found = subprocess.run([sys.executable, "-c", START.format(before="")], capture_output=True, text=True)
    assert (found.stdout, found.stderr) == ("tensorflow\n", "an own message\n")


@pytest.mark.parametrize("error", ["ImportError('no keras')", "OSError('disk')"])
def test_start_keras_that_fails_prints_the_messages(error: str):
    before = f"""
import os
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "keras":
            os.write(2, b"message of a library\\n")
            raise {error}
sys.meta_path.insert(0, Broken())
"""
    found = subprocess.run([sys.executable, "-c", START.format(before=before)], capture_output=True, text=True)
    assert found.returncode == 1
    assert found.stderr.startswith("message of a library\nTraceback")
    assert error.split("(")[0] in found.stderr
