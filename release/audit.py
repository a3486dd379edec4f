"""Compare the packages of constraints.txt with OSV's database of known vulnerabilities.

Exits with 1 if one of them has a known vulnerability. Where the database cannot be reached, nothing
is known either way: a line says that nothing was compared, and the exit code is 0.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import requests
from packaging.version import Version
from pip_audit._service import ConnectionError as ServiceConnectionError
from pip_audit._service import OsvService, ResolvedDependency

PINS = Path(__file__).resolve().parents[1] / "constraints.txt"


def main() -> int:
    """Return the exit code."""
    probe = ResolvedDependency("pip", Version("23.0"))
    try:
        OsvService(timeout=15).query(probe)
    except (requests.RequestException, ServiceConnectionError) as error:
        print(f"audit SKIPPED: the database cannot be reached ({type(error).__name__})")
        print(f"audit SKIPPED: no package of {PINS.name} was compared with anything")
        return 0
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", "osv"]
    options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--requirement"]
    return subprocess.run([*command, *options, PINS], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
