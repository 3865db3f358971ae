"""The command ``scpalm-train all``: from files of cells to a bundle that serves every output."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scpalm.training.cli.console import command

if TYPE_CHECKING:
    from scpalm.training.runs.run import Run


@dataclass(frozen=True)
class _Step:
    """One part of the way to a bundle. ``optional``: why the bundle is still of use if this step finds no data."""

    title: str
    is_done: Callable[[], bool]
    do: Callable[[], None]
    optional: str = ""


@command
def train_all(
    *,
    files: Annotated[list[Path], typer.Argument(metavar="FILE.h5ad ...", help="Cells: h5ad files and zarr stores.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the corpus, the run and the bundle.")],
    preset: Annotated[str, typer.Option(help="mini or base.")] = "mini",
    steps: Annotated[int | None, typer.Option(help="Batches to train in each stage.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value, for stage 1.")] = None,
    cell_settings: Annotated[list[str] | None, typer.Option("--set-cells", help="key=value, for stage 2.")] = None,
    never: Annotated[
        list[Path] | None, typer.Option(help="Evaluation file whose cells must not enter the corpus.")
    ] = None,
    profiles: Annotated[
        list[str] | None, typer.Option(help="Parquet file of expression profiles to simulate cells from.")
    ] = None,
    gene_sets: Annotated[
        list[Path] | None, typer.Option("--gene-sets", help="GMT files of symbols: names the codes, e.g. Reactome.")
    ] = None,
    drug_response: Annotated[
        Path | None, typer.Option(help="Folder of drug response tables: adds /ic50. See drug_response/README.md.")
    ] = None,
    genes: Annotated[Path | None, typer.Option(help="genes.parquet; default: the embedded bundle's.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; default: the preset's.")] = None,
    version: Annotated[str, typer.Option(help="Version of the model.")] = "1",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:n.")] = "auto",
) -> None:
    """Do everything: corpus, both stages, export, cell types, names of codes, drug response.

    Repeat the command after an interruption: finished steps are kept, and training continues from its checkpoint.

    Example: scpalm-train all CELLS/*.h5ad --out MINE --gene-sets reactome.gmt --drug-response DRUGS
    """
    from scpalm.training.cli.commands.corpus import corpus
    from scpalm.training.cli.commands.drug_response_kernel import drug_response_head
    from scpalm.training.cli.commands.evaluate.commands import pathways as name_codes
    from scpalm.training.cli.commands.export import export
    from scpalm.training.cli.commands.reference import reference
    from scpalm.training.cli.commands.stages import cells, pathways
    from scpalm.training.runs.run import Run

    corpus_dir, run, bundle = out / "corpus", Run(out / "run"), out / "bundle"
    started = (run.path / "config.json").exists()
    cells_started = run.has_checkpoint("stage2")
    chain = [
        _Step(
            "corpus",
            corpus_dir.exists,
            lambda: corpus(out_dir=corpus_dir, files=files, genes=genes, never=never, profiles=profiles),
        ),
        _Step(
            "pathways (stage 1)",
            lambda: _finished(run, "stage1"),
            lambda: pathways(
                corpus_dir=corpus_dir,
                out=run.path,
                preset=preset,
                steps=steps,
                settings=None if started else settings,
                resume=started,
                device=device,
            ),
        ),
        _Step(
            "cells (stage 2), view head, decoder",
            lambda: _finished(run, "stage2", "views", "decoder"),
            lambda: cells(
                run_dir=run.path,
                steps=steps,
                settings=None if cells_started else cell_settings,
                resume=cells_started,
                device=device,
            ),
        ),
        _Step("export", bundle.exists, lambda: export(run_dir=run.path, out=bundle, name=name, version=version)),
        _Step(
            "cell types",
            lambda: "reference" in _manifest(bundle),
            lambda: reference(corpus_dir=corpus_dir, bundle=bundle),
            "annotate needs labelled cells of its user",
        ),
    ]
    if gene_sets:
        chain.append(
            _Step(
                "names of codes",
                lambda: (bundle / "pathways.json").exists(),
                lambda: name_codes(sources=[corpus_dir], gene_sets=gene_sets, bundle=bundle, record=True),
                "codes have no genes and terms",
            )
        )
    if drug_response:
        chain.append(
            _Step(
                "drug response",
                lambda: "drug_response" in _manifest(bundle),
                lambda: drug_response_head(data_dir=drug_response, bundle=bundle),
            )
        )
    left_out = [missing for step in _numbered(chain) if (missing := _perform(step))]
    if not gene_sets:
        left_out.append("names of codes (give --gene-sets)")
    if not drug_response:
        left_out.append("drug response (give --drug-response)")
    typer.echo(f"outputs: {', '.join(_manifest(bundle)['tasks'])}")
    if left_out:
        typer.echo(f"left out: {'; '.join(left_out)}")
    typer.echo(f"-> {bundle}. Serve it: SCPALM_BUNDLE={bundle} scpalm serve")


def _numbered(chain: list[_Step]) -> list[_Step]:
    return [
        _Step(f"{number}/{len(chain)} {step.title}", step.is_done, step.do, step.optional)
        for number, step in enumerate(chain, 1)
    ]


def _perform(step: _Step) -> str:
    """Do a step that is not done. Returns what the bundle lacks if an optional step failed; its error is printed."""
    if step.is_done():
        typer.echo(f"{step.title}: done before", err=True)
        return ""
    typer.echo(step.title, err=True)
    try:
        step.do()
    except typer.Exit:
        if not step.optional:
            raise
        return f"{step.title.partition(' ')[2]} ({step.optional})"
    return ""


def _finished(run: Run, *stages: str) -> bool:
    from scpalm.training.runs.run import RunError

    try:
        for stage in stages:
            run.finished(stage)
    except (RunError, KeyError):
        return False
    return True


def _manifest(bundle: Path) -> dict[str, list[str]]:
    file = bundle / "manifest.json"
    return dict(json.loads(file.read_text())) if file.exists() else {}
