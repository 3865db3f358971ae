"""``scpalm-train corpus``: files of cells and expression profiles in, one sharded corpus out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scpalm.model.bundle import DEFAULT_BUNDLE
from scpalm.training.cli.console import command, progress_bar
from scpalm.training.cli.keep import check_keep

if TYPE_CHECKING:
    from scpalm.training.corpus.census.blocks import Download
    from scpalm.training.corpus.census.reader import CensusQuery
    from scpalm.training.corpus.simulated.simulate import SimulationOptions


@command
def corpus(
    *,
    out_dir: Path,
    files: Annotated[list[Path] | None, typer.Argument(help="h5ad files and zarr stores.")] = None,
    genes: Annotated[Path | None, typer.Option(help="genes.parquet; default: the embedded bundle's.")] = None,
    never: Annotated[
        list[Path] | None, typer.Option(help="Evaluation file whose cells must not enter the corpus.")
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="column=value: keep these cells in files that have the column.")
    ] = None,
    totals_column: Annotated[
        str, typer.Option(help="Column of obs with each cell's counts over all genes.")
    ] = "total_UMIs",
    layer: Annotated[
        str, typer.Option(help="X, raw or a layer; auto: the first of X, layer counts and raw.X that holds counts.")
    ] = "auto",
    held_out: Annotated[float, typer.Option(help="Share of cells kept for the held-out loss.", min=0, max=0.9)] = 0.02,
    seed: Annotated[int, typer.Option(help="Seed of the held-out cells and of simulated cells.")] = 0,
    profiles: Annotated[
        list[str] | None,
        typer.Option(
            help="Parquet file of expression profiles (genes x cell types) to simulate cells from; may be repeated. "
            "FILE:linear skips the check that its scale is linear."
        ),
    ] = None,
    profile_cells: Annotated[int, typer.Option(help="Simulated cells per profile.", min=1)] = 30,
    profile_depth: Annotated[
        str | None, typer.Option(help="LOW,HIGH: counts of a simulated cell; default: as in the real cells.")
    ] = None,
    profile_dispersion: Annotated[
        float | None, typer.Option(help="Dispersion of simulated counts; default: as in the real cells.", min=0)
    ] = None,
    profile_min_genes: Annotated[int, typer.Option(help="Skip profiles that measure fewer known genes.", min=1)] = 3000,
    skip_profiles: Annotated[
        list[str] | None, typer.Option(help="Pattern of profiles to leave out, such as '*|unknown|*'.")
    ] = None,
    census: Annotated[
        str | None,
        typer.Option(
            help="Also take the cells of CELLxGENE Census that pass this filter, e.g. "
            "'tissue_general == \"lung\" and is_primary_data == True'."
        ),
    ] = None,
    census_uri: Annotated[
        str | None,
        typer.Option(help="A census or experiment in TileDB-SOMA, e.g. a folder; default: the public census."),
    ] = None,
    census_version: Annotated[str, typer.Option(help="Version of the public census, such as 2025-11-08.")] = "stable",
    census_layer: Annotated[str, typer.Option(help="Matrix of the census with raw counts.")] = "raw",
    max_cells: Annotated[
        int | None, typer.Option(help="Cells to take from the census, balanced by tissue_general.", min=1)
    ] = None,
) -> None:
    """Build one sharded sparse corpus from files with different genes, and from simulated cells; report each file."""
    from scpalm.model.genes.vocabulary import Vocabulary
    from scpalm.training.corpus.build import build_corpus, refuse_existing
    from scpalm.training.corpus.census.blocks import remove
    from scpalm.training.corpus.census.reader import CensusQuery
    from scpalm.training.corpus.simulated.profiles import ProfileFile
    from scpalm.training.corpus.simulated.simulate import SimulationOptions
    from scpalm.training.corpus.source import CorpusOptions
    from scpalm.training.runs.config import ConfigError

    if not files and not profiles and census is None:
        raise ConfigError("Name at least one file of cells, --profiles or --census.")
    refuse_existing(out_dir)
    query = _query(census, CensusQuery("", census_uri, census_version, census_layer, max_cells, seed))
    simulation = SimulationOptions(
        files=tuple(ProfileFile.parse(text) for text in profiles or []),
        cells=profile_cells,
        depth=_depth(profile_depth),
        dispersion=profile_dispersion,
        min_genes=profile_min_genes,
        skip=tuple(skip_profiles or ()),
    )
    _check_effect(simulation)
    known = Vocabulary.load(genes or DEFAULT_BUNDLE / "genes.parquet")
    cells = list(files or [])
    downloaded = _download(query, out_dir.with_name(out_dir.name + ".census")) if query else None
    if downloaded:
        cells += downloaded.files
    options = CorpusOptions(
        totals_column=totals_column,
        keep=check_keep(cells, keep),
        layer=layer,
        held_out=held_out,
        seed=seed,
        simulation=simulation,
        census=downloaded.origin if downloaded else {},
    )
    with progress_bar(None, "corpus", unit="cell") as bar:
        meta = build_corpus(
            out_dir, cells, known, options, never=never or [], progress=lambda name, n: bar.advance(n, name)
        )
    if downloaded:
        remove(downloaded)
    typer.echo("\n".join(report_lines(meta)))
    typer.echo(f"{sum(meta['shard_cells']):,} cells, {meta['num_genes']:,} genes -> {out_dir}")


def report_lines(meta: dict[str, Any]) -> list[str]:
    """A table of the files of a corpus, and what was simulated and skipped."""
    lines = [f"{'file':44} {'cells':>7} {'genes':>7} {'known':>7} {'dupl.':>6} {'filt.':>6} {'eval':>5}  input"]
    for file in meta["files"]:
        kind = f"simulated, {file['profiles']} profiles" if file.get("simulated") else file.get("input", "-")
        lines.append(
            f"{file['file'][:44]:44} {file['cells']:7,} {file.get('genes_in', 0):7,} {file.get('genes_matched', 0):7,} "
            f"{file['duplicates']:6,} {file['filtered']:6,} {file['evaluation_cells']:5,}  {kind}"
        )
    if census := meta.get("census"):
        lines += [
            f"census {census['request']['release']}, {tissue}: {number:,} of {census['available'][tissue]:,} cells"
            for tissue, number in census["chosen"].items()
        ]
    simulation = meta.get("simulation")
    if not simulation:
        return lines
    low, high = simulation["depth"]
    fitted = f", from {simulation['groups']} groups of real cells" if simulation["groups"] else ""
    lines.append(f"simulated with {low:,.0f} to {high:,.0f} counts, dispersion {simulation['dispersion']:.3g}{fitted}")
    for file in simulation["files"]:
        reasons: dict[str, list[str]] = {}
        for column, reason in file["skipped"].items():
            reasons.setdefault(reason, []).append(column)
        for reason, columns in reasons.items():
            lines.append(f"{file['file']}: skipped {len(columns)} columns ({reason}): {', '.join(columns)}")
    return lines


def _query(value_filter: str | None, query: CensusQuery) -> CensusQuery | None:
    """The query with its filter, or None without --census. Raises ConfigError for options without effect."""
    from scpalm.training.corpus.census.reader import CensusQuery
    from scpalm.training.runs.config import ConfigError

    if value_filter is not None:
        return replace(query, value_filter=value_filter)
    if query != CensusQuery("", seed=query.seed):
        raise ConfigError("--max-cells and options of the census have no effect without --census.")
    return None


def _download(query: CensusQuery, folder: Path) -> Download:
    from scpalm.training.corpus.census.blocks import download

    with progress_bar(None, "census", unit="cell") as bar:
        return download(query, folder, lambda name, n: bar.advance(n, name))


def _depth(text: str | None) -> tuple[float, float] | None:
    from scpalm.training.runs.config import ConfigError

    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not 1 <= low <= high < float("inf"):
        raise ConfigError(f"--profile-depth takes LOW,HIGH with 1 <= LOW <= HIGH, is '{text}'.")
    return low, high


def _check_effect(simulation: SimulationOptions) -> None:
    from scpalm.training.corpus.simulated.simulate import SimulationOptions
    from scpalm.training.runs.config import ConfigError

    if not simulation.files and simulation != SimulationOptions():
        raise ConfigError("Options of profiles have no effect without --profiles.")
