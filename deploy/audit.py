"""Print the known vulnerabilities of the packages in requirements files. Exit status 1 if there are any.

    python deploy/audit.py --advisories FOLDER deploy/requirements-*.txt

FOLDER holds advisories in OSV format (https://ossf.github.io/osv-schema), one JSON file each, such as the unpacked
``PyPI/all.zip`` of osv.dev. No network is used. With a network, `pip-audit -r FILE` does the same.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)")


@dataclass(frozen=True)
class Finding:
    """A package with a known vulnerability.

    Attributes:
        package: its name.
        version: its pinned version.
        advisory: id of the advisory, with its aliases, such as the CVE.
        fixed: versions that have the fix.
        summary: what the advisory says, in one line.
    """

    package: str
    version: str
    advisory: str
    fixed: tuple[str, ...]
    summary: str


def canonical(name: str) -> str:
    """The name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, str]:
    """Package names and versions of a requirements file."""
    found = (_PIN.match(line) for line in text.splitlines())
    return {canonical(pin[1]): pin[2] for pin in found if pin}


def is_affected(version: Version, affected: Mapping[str, Any]) -> bool:
    """Whether a version is in one of the ranges or in the list of versions of an advisory."""
    if any(_is_same(version, text) for text in affected.get("versions", ())):
        return True
    ranges = (found for found in affected.get("ranges", ()) if found["type"] == "ECOSYSTEM")
    return any(_is_in_range(version, found["events"]) for found in ranges)


def _is_same(version: Version, text: str) -> bool:
    try:
        return version == Version(text)
    except InvalidVersion:
        return False


def _is_in_range(version: Version, events: Sequence[Mapping[str, str]]) -> bool:
    """Walk the events in the order of their versions: each starts or ends a vulnerable range."""
    inside = False
    for kind, text in sorted((item for event in events for item in event.items()), key=lambda item: _order(item[1])):
        bound = _order(text)
        if kind == "introduced" and version >= bound:
            inside = True
        elif (kind == "fixed" and version >= bound) or (kind == "last_affected" and version > bound):
            inside = False
    return inside


def _order(text: str) -> Version:
    return Version("0.dev0") if text == "0" else Version(text)


def findings(installed: Mapping[str, str], advisories: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """The advisories that concern the installed versions. Withdrawn ones are left out."""
    for advisory in advisories:
        if "withdrawn" in advisory:
            continue
        for affected in advisory.get("affected", ()):
            package = affected.get("package", {})
            name = canonical(package.get("name", ""))
            if package.get("ecosystem") == "PyPI" and name in installed:
                version = installed[name]
                if is_affected(Version(version), affected):
                    ids = ", ".join([advisory["id"], *advisory.get("aliases", ())])
                    yield Finding(name, version, ids, _fixes(affected), advisory.get("summary", ""))


def _fixes(affected: Mapping[str, Any]) -> tuple[str, ...]:
    events = [event for found in affected.get("ranges", ()) for event in found["events"]]
    return tuple(event["fixed"] for event in events if "fixed" in event)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--advisories", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    options = parser.parse_args()
    advisories = [json.loads(path.read_text()) for path in sorted(options.advisories.rglob("*.json"))]
    if not advisories:
        parser.error(f"{options.advisories} has no advisories (*.json).")
    found: dict[Finding, list[str]] = {}
    num_packages = 0
    for path in options.files:
        installed = pins(path.read_text())
        num_packages += len(installed)
        for finding in findings(installed, advisories):
            found.setdefault(finding, []).append(path.name)
    for finding, files in found.items():
        fix = f"fixed in {', '.join(finding.fixed)}" if finding.fixed else "no fix"
        print(
            f"{finding.package} {finding.version}: {finding.advisory} ({fix}): {finding.summary} [{', '.join(files)}]"
        )
    print(
        f"{num_packages} packages in {len(options.files)} files, {len(advisories)} advisories: {len(found)} findings."
    )
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
