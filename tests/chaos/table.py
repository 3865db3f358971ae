"""`python -m tests.chaos.table [--size 3] [CASE ...]` runs the cases under a larger load.

Prints two tables. Processes: fault, result, seconds (until the response, or until the service was restored), lost
requests, and duplicated results. Places in one process: place, fault, what the client saw, and what was left.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.chaos.cases import CASES
from tests.chaos.cluster import LEASE_SECONDS, cluster
from tests.chaos.job_cases import JOB_CASES
from tests.chaos.places import PLACES
from tests.chaos.site import site
from tests.chaos.upgrade_cases import UPGRADE_CASES


def main() -> None:
    names = [case.__name__ for case in (*CASES, *JOB_CASES, *UPGRADE_CASES, *PLACES.values())]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=3, help="scale of the load")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(names))
    options = parser.parse_args()
    chosen = set(options.cases or names)
    print(f"lease {LEASE_SECONDS:g} s, size {options.size}\n")
    print("| fault | result | seconds | lost | duplicated |\n|---|---|---|---|---|")
    for case in (*CASES, *JOB_CASES, *UPGRADE_CASES):
        if case.__name__ in chosen:
            fault = str(case.__doc__).partition(":")[0].rstrip(".")
            with tempfile.TemporaryDirectory() as folder, cluster(Path(folder) / "cluster") as made:
                row = case(made, options.size)
            print(f"| {fault} | {row.what} | {row.seconds:.1f} | {row.lost} | {row.duplicated} |", flush=True)
    print("\n| place | fault | what the client saw | what was left |\n|---|---|---|---|")
    for (where, fault), place in PLACES.items():
        if place.__name__ in chosen:
            with tempfile.TemporaryDirectory() as folder, site(Path(folder) / "site") as one:
                seen = place(one)
            print(f"| {where} | {fault} | {seen.client} | {seen.left} |", flush=True)


if __name__ == "__main__":
    main()
