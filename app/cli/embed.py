"""``--cluster [ADDRESS]``: an option whose value may be left out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand

LOCAL = "local"
_ADDRESS = re.compile(r"[a-z]+://\S+|[\w.-]+:\d+")

ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="[ADDRESS]",
        help="Many processes here, or the Dask cluster at ADDRESS. IN may be a zarr store, OUT is one (OUT.zarr).",
    ),
]
ProcessesOption = Annotated[
    int | None, typer.Option(min=1, help="With --cluster on this machine: how many. Default: one a core.")
]


class ClusterCommand(TyperCommand):
    """A bare ``--cluster`` is ``--cluster=local``: what follows is its value only where it looks like an address."""

    def parse_args(self, ctx, args):  # type: ignore[no-untyped-def]  # its types are private to typer
        given = list(args)
        for number, (arg, following) in enumerate(zip(args, [*args[1:], ""], strict=True)):
            if arg == "--cluster" and following != LOCAL and not _ADDRESS.fullmatch(following):
                given[number] = f"--cluster={LOCAL}"
        return super().parse_args(ctx, given)


def address_of(cluster: str | None, processes: int | None, out: Path) -> str | None:
    """Address of the scheduler, None for processes here. Raises BadParameter for options that do not fit together."""
    if cluster is None and processes is not None:
        raise typer.BadParameter("is for --cluster.", param_hint="--processes")
    if cluster not in (None, LOCAL) and processes is not None:
        raise typer.BadParameter("is for this machine; a cluster has the workers it has.", param_hint="--processes")
    if cluster is not None and out.suffix != ".zarr":
        raise typer.BadParameter("must end in .zarr: many processes cannot write one h5ad file.", param_hint="--out")
    return None if cluster == LOCAL else cluster
