import json

from scripts import image_table
from scripts.image_table import count_vulnerabilities
from tests.helpers.errors import raises_user_error


def test_count_vulnerabilities_counts_each_once(tmp_path):
    """A vulnerability of several packages is found several times; other severities are not counted."""
    found = [("CVE-1", "High"), ("CVE-1", "High"), ("CVE-2", "Critical"), ("CVE-3", "High"), ("CVE-4", "Negligible")]
    matches = [{"vulnerability": {"id": name, "severity": severity}, "artifact": {}} for name, severity in found]
    (tmp_path / "scan.json").write_text(json.dumps({"matches": matches}))
    assert count_vulnerabilities(tmp_path / "scan.json") == "1 / 2 / 0"


def test_missing_images_are_one_user_error(tmp_path, monkeypatch):
    """The engine is a program that does not know any image."""
    (tmp_path / "podman").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "podman").chmod(0o755)
    monkeypatch.setattr(image_table, "engine", lambda: str(tmp_path / "podman"))
    with raises_user_error("containers.no_image"):
        image_table.main(None)
