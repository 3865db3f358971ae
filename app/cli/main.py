"""The command line ``scpalm``. Exit status: 0 for success, 2 for wrong usage, 1 for an error (one line on stderr)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from scpalm.app.cli.commands.annotate import annotate
from scpalm.app.cli.commands.check import check
from scpalm.app.cli.commands.doctor import doctor
from scpalm.app.cli.commands.embed import ClusterCommand, embed
from scpalm.app.cli.commands.integrate import integrate
from scpalm.app.cli.commands.jobs import jobs
from scpalm.app.cli.commands.key import key
from scpalm.app.cli.commands.models import models
from scpalm.app.cli.commands.serve import ServeCommand, serve
from scpalm.app.cli.commands.task_commands import task_command
from scpalm.app.cli.commands.worker import worker
from scpalm.app.cli.strict import StrictCommand
from scpalm.model.errors import UserError
from scpalm.model.release import release
from scpalm.model.tasks.registry import tasks

# Commands import what they need when they run, so that `--version` and `--help` are fast.

cli = typer.Typer(
    name="scpalm",
    help="scPaLM: embeddings, imputation, pathway tokens and drug response for single cells.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(enabled: bool) -> None:  # typer passes the value by position
    if enabled:
        typer.echo(release())
        raise typer.Exit


@cli.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """scPaLM: embeddings, imputation, pathway tokens and drug response for single cells."""


cli.command(cls=ServeCommand)(serve)
cli.command(cls=ServeCommand)(worker)
cli.command()(jobs)
cli.command(cls=StrictCommand)(key)
cli.command(cls=StrictCommand)(check)
cli.command()(doctor)
cli.command()(models)
cli.command(cls=ClusterCommand)(embed)
cli.command(cls=StrictCommand)(annotate)
cli.command(cls=StrictCommand)(integrate)
for _task in tasks().values():
    if _task.name not in ("embed", "annotate", "integrate"):  # added above, with further options
        cli.command(_task.name, cls=StrictCommand)(task_command(_task))


@cli.command()
def sample(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="cells.h5ad", help="File to write.")],
) -> None:
    """Write a small sample file of real cells.

    Example: scpalm sample -o cells.h5ad
    """
    from scpalm.app.offline.sample import write_sample

    num_cells, num_genes = write_sample(out)
    typer.echo(f"{out}: {num_cells} cells x {num_genes} genes", err=True)


def main() -> None:
    """Entry point. Prints errors of the user as one line on stderr, without a traceback."""
    try:
        cli()
    except (UserError, OSError, MemoryError) as error:
        print(f"scpalm: {_one_line(error)}", file=sys.stderr)
        sys.exit(1)


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the disk'}: {error.strerror}."
    return " ".join(str(error).split()) or type(error).__name__
