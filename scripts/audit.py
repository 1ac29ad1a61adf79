"""What Meterway runs on: pinned, under licences that are accepted, without a known vulnerability.

    python scripts/audit.py            all three; 1 if something is wrong
    python scripts/audit.py --offline  without asking for vulnerabilities

Looks at what `meterway[cloud,embedded]` needs, and what that needs, as installed beside this Python. Vulnerabilities
are asked of PyPI by pip-audit, for all of constraints.txt. Where its advisories cannot be had (no network, a mirror
without them) that is said, and is an error only with METERWAY_AUDIT=required.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

LOCK = Path(__file__).parents[1] / "constraints.txt"
EXTRAS = ("cloud", "embedded")
WITHIN_S = 300

ACCEPTED = {
    "0BSD", "Apache-2.0", "BSD", "BSD License", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT License", "MIT-0",
    "MPL-2.0", "Apache Software License", "Mozilla Public License 2.0 (MPL 2.0)", "PSF-2.0", "PostgreSQL",
}  # fmt: skip
"""SPDX names, and what older packages write instead. Nothing that binds who links it (GPL), nothing that forbids use
(BUSL)."""


def normal(name: str) -> str:
    """Return the name of a package as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed() -> dict[str, Distribution]:
    """Return all that the runtime needs, by name."""
    found: dict[str, Distribution] = {}
    waiting: list[tuple[str, tuple[str, ...]]] = [("meterway", EXTRAS)]
    while waiting:
        name, extras = waiting.pop()
        if normal(name) in found and not extras:
            continue
        package = found[normal(name)] = distribution(name)
        for text in package.requires or ():
            wanted = Requirement(text)
            marker = wanted.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in (extras or ("",))):
                waiting.append((wanted.name, tuple(wanted.extras)))
    return found


def licences(package: Distribution) -> set[str]:
    """Return what a package says that it is under; any one of them will do."""
    expression = package.metadata.get("License-Expression")
    if expression:
        return set(expression.split(" OR "))
    classifiers = package.metadata.get_all("Classifier") or []
    named = {line.rpartition("::")[2].strip() for line in classifiers if line.startswith("License ::")}
    return named or {(package.metadata.get("License") or "none").strip().splitlines()[0]}


def pinned() -> dict[str, str]:
    """Return the version of each package in the lock file."""
    lines = (line.split("#")[0].strip() for line in LOCK.read_text(encoding="utf-8").splitlines())
    return {normal(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def faults_of_packages() -> Iterator[str]:
    """Yield what is wrong with what is installed."""
    lock = pinned()
    for name, package in sorted(needed().items()):
        if name == "meterway":
            continue
        if lock.get(name) != package.version:
            yield f"{name} {package.version} is installed and {lock.get(name, 'nothing')} is in {LOCK.name}: pin it"
        if not licences(package) & ACCEPTED:
            yield f"{name} is under {', '.join(sorted(licences(package)))}: look at it, then add it to ACCEPTED"


def vulnerabilities() -> tuple[list[str], str]:
    """Return the vulnerabilities that are known, and why they could not be asked for (empty when they could)."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(LOCK), "--no-deps", "--disable-pip", "-f", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WITHIN_S)
        packages = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError) as error:
        return [], f"pip-audit gave no answer ({type(error).__name__})"
    skipped = [each["name"] for each in packages if "skip_reason" in each]
    found = [
        f"{each['name']} {each['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'no version'}"
        for each in packages
        for found in each.get("vulns", ())
    ]
    return found, f"no advisories for {len(skipped)} of {len(packages)} packages here" if skipped else ""


def main() -> int:
    """Print what was found; return the exit code."""
    wrong = list(faults_of_packages())
    print(f"audit: {len(needed()) - 1} packages, their versions and licences: {len(wrong)} wrong")
    if "--offline" not in sys.argv:
        known, silent = vulnerabilities()
        wrong += known
        print(f"audit: {len(known)} known vulnerabilities" + (f"; not asked: {silent}" if silent else ""))
        if silent and os.environ.get("METERWAY_AUDIT") == "required":
            wrong.append(f"vulnerabilities: {silent}")
    for line in wrong:
        print(f"audit: ! {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
