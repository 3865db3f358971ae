"""`python -m tests.chaos.table [--size 3] [CASE ...]` runs the cases under a larger load.

Prints a table: fault, result, seconds (until the response, or until the service was restored), lost requests, and
duplicated results.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.chaos.cases import CASES
from tests.chaos.cluster import LEASE_SECONDS, cluster


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=3, help="scale of the load")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(case.__name__ for case in CASES))
    options = parser.parse_args()
    print(f"lease {LEASE_SECONDS:g} s, size {options.size}\n")
    print("| fault | result | seconds | lost | duplicated |\n|---|---|---|---|---|")
    for case in CASES:
        if options.cases and case.__name__ not in options.cases:
            continue
        fault = str(case.__doc__).partition(":")[0].rstrip(".")
        with tempfile.TemporaryDirectory() as folder, cluster(Path(folder) / "cluster") as made:
            row = case(made, options.size)
        print(f"| {fault} | {row.what} | {row.seconds:.1f} | {row.lost} | {row.duplicated} |", flush=True)


if __name__ == "__main__":
    main()
