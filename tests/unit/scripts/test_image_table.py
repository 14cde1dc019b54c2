import json

from scripts.image_table import count_vulnerabilities


def test_count_vulnerabilities_counts_each_once(tmp_path):
    """A vulnerability of several packages is found several times; other severities are not counted."""
    found = [("CVE-1", "High"), ("CVE-1", "High"), ("CVE-2", "Critical"), ("CVE-3", "High"), ("CVE-4", "Negligible")]
    matches = [{"vulnerability": {"id": name, "severity": severity}, "artifact": {}} for name, severity in found]
    (tmp_path / "scan.json").write_text(json.dumps({"matches": matches}))
    assert count_vulnerabilities(tmp_path / "scan.json") == "1 / 2 / 0"
