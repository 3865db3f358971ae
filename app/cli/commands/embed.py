"""The command ``scpalm embed``, with ``--cluster [ADDRESS]``, whose value is optional."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from scpalm.app.cli.commands.task_commands import run_task
from scpalm.app.cli.options import (
    BundleOption,
    InArgument,
    InputOption,
    JsonOption,
    LayerOption,
    OutOption,
    TotalOption,
)
from scpalm.app.cli.strict import StrictCommand
from scpalm.model.errors import InputError, MissingRuntimeError
from scpalm.model.spec import RequestSpec

LOCAL = "local"
_ADDRESS = re.compile(r"[a-z]+://\S+|[\w.-]+:\d+")

ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="[ADDRESS]",
        help="Use several processes on this machine, or the Dask cluster at ADDRESS. IN may be a zarr store; OUT must "
        "be one (OUT.zarr).",
    ),
]
ProcessesOption = Annotated[
    int | None,
    typer.Option(min=1, help="Number of processes for --cluster on this machine. Default: one per core."),
]


class ClusterCommand(StrictCommand):
    """Treats a bare ``--cluster`` as ``--cluster=local``. The next argument is its value only if it is an address."""

    def parse_args(self, ctx, args):  # type: ignore[no-untyped-def]  # its types are private to typer
        given = list(args)
        for number, (arg, following) in enumerate(zip(args, [*args[1:], ""], strict=True)):
            if arg == "--cluster" and following != LOCAL and not _ADDRESS.fullmatch(following):
                given[number] = f"--cluster={LOCAL}"
        return super().parse_args(ctx, given)


def embed(  # one parameter per command-line option
    source: InArgument,
    out: OutOption,
    bundle: BundleOption = None,
    layer: LayerOption = None,
    input: InputOption = "auto",
    total: TotalOption = None,
    cluster: ClusterOption = None,
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Embed the cells of a file into obsm['X_scpalm']. Memory use does not grow with the number of cells.

    Example: scpalm embed cells.h5ad -o embedded.h5ad
    """
    _check(cluster, processes, out, as_json=as_json)
    spec = RequestSpec(("embed",), layer=layer, input=input, total=total)
    if cluster is None:
        run_task(source, out, bundle, spec, as_json=as_json)
    else:
        embed_on_cluster(source, out, bundle, spec, None if cluster == LOCAL else cluster, processes)


def _check(cluster: str | None, processes: int | None, out: Path, *, as_json: bool) -> None:
    """Raise BadParameter for options that exclude each other."""
    if cluster is None and processes is not None:
        raise typer.BadParameter("requires --cluster.", param_hint="--processes")
    if cluster not in (None, LOCAL) and processes is not None:
        raise typer.BadParameter(
            "applies only to this machine, not to a cluster at an address.", param_hint="--processes"
        )
    if cluster is not None and as_json:
        raise typer.BadParameter("is not available with --cluster.", param_hint="--json")
    if cluster is not None and out.suffix != ".zarr":
        raise typer.BadParameter(
            "must end in .zarr, because several processes cannot write one h5ad file.", param_hint="--out"
        )


def embed_on_cluster(
    source: Path, out: Path, bundle: Path | None, spec: RequestSpec, address: str | None, processes: int | None
) -> None:
    """Embed on a Dask cluster or with local processes. Raises MissingRuntimeError, InputError, ClusterError."""
    from scpalm.app.cli.progress import CellProgress
    from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle

    if not source.exists():
        raise InputError("no-such-file", f"{source} does not exist.", hint="Give an .h5ad file or a zarr store.")
    try:
        from scpalm.app.offline.cluster.driver import ClusterOptions, embed_atlas
    except ModuleNotFoundError as error:
        raise MissingRuntimeError("Dask is not installed. Install it with: pip install 'scpalm[cluster]'") from error
    with CellProgress() as progress:
        opened = Bundle.load(bundle or DEFAULT_BUNDLE)
        embed_atlas(source, out, opened, spec, ClusterOptions(address, processes), progress)
