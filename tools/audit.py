"""`python -m tools.audit`: known vulnerabilities of what CI installs, by pip-audit.

Exits with 1 where one is known. Where nobody could be asked it says NOT AUDITED, and exits with 0.
"""

import json
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / ".ci" / "constraints.txt"


def main() -> int:
    command = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "-f", "json"]
    told = subprocess.run(
        [*command, "-r", str(CONSTRAINTS), "--no-deps", "--disable-pip"], capture_output=True, text=True
    )
    try:
        found = json.loads(told.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"NOT AUDITED: pip-audit could ask nobody: {told.stderr.strip().splitlines()[-1:]}")
        return 0
    passed_over = [one for one in found if "skip_reason" in one]
    bad = [(one["name"], one["version"], each["id"]) for one in found for each in one.get("vulns", [])]
    for name, version, vulnerability in bad:
        print(f"{name} {version}: {vulnerability}")
    looked_at = len(found) - len(passed_over)
    print(
        f"{looked_at} packages audited, {len(passed_over)} that the service does not know, {len(bad)} vulnerabilities"
    )
    if not looked_at:
        print("NOT AUDITED: the service knows none of them")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
