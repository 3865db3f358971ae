"""The command ``scpalm check``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scpalm.app.cli.options import BundleOption, InArgument, InputOption, LayerOption, TotalOption

if TYPE_CHECKING:
    from scpalm.app.offline.check import FileReport


def check(
    source: InArgument,
    bundle: BundleOption = None,
    layer: LayerOption = None,
    input: InputOption = "auto",
    total: TotalOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Say what would be read from a file, what would be left out, and what to expect. Nothing is computed.

    Example: scpalm check cells.h5ad
    """
    from scpalm.app.cli.pipes import as_files
    from scpalm.app.offline.check import check_file
    from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle
    from scpalm.model.genes.values.declared import Declaration

    with as_files(source, Path("none")) as (read, _):
        found = check_file(read, Bundle.load(bundle or DEFAULT_BUNDLE), layer=layer, declared=Declaration(input, total))
    typer.echo(json.dumps(found.as_dict(), indent=2) if as_json else "\n".join(_lines(found)))


def _lines(found: FileReport) -> list[str]:
    coverage = found.coverage
    counts = {"symbol": coverage.by_symbol, "Ensembl id": coverage.by_ensembl, "alias": coverage.by_alias}
    names = ", ".join(f"{count:,} by {how}" for how, count in counts.items() if count)
    lines = [
        f"cells      {found.num_cells:,}; {found.expressed:,.0f} expressed genes of the model (median of the first)",
        f"values     {found.input.detected} from {found.input.source}: {found.input.why}",
        f"genes      {coverage.genes_matched:,} of {coverage.genes_in:,} are known ({names})",
    ]
    if coverage.left_out:
        lines.append("left out   " + ", ".join(f"{count:,} {reason}" for reason, count in coverage.left_out.items()))
    if coverage.repaired:
        lines.append("repaired   " + ", ".join(f"{count:,} {kind}" for kind, count in coverage.repaired.items()))
    if coverage.unmatched:
        more = " ..." if len(coverage.unmatched) > 8 else ""
        lines.append("unknown    " + ", ".join(coverage.unmatched[:8]) + more)
    lines += [f"warning    {text}" for text in found.input.warnings]
    return lines + [f"expect     {text}" for text in found.advice]
