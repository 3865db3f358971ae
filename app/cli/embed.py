"""``scpalm embed``, also on a cluster: the value of ``--cluster [ADDRESS]`` may be left out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand

from scpalm.app.cli.options import BundleOption, InArgument, InputOption, LayerOption, OutOption
from scpalm.app.cli.task_commands import run_task
from scpalm.model.errors import InputError, MissingRuntimeError
from scpalm.model.spec import RequestSpec

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
    """A bare ``--cluster`` means ``--cluster=local``: what follows is its value only if it looks like an address."""

    def parse_args(self, ctx, args):  # type: ignore[no-untyped-def]  # its types are private to typer
        given = list(args)
        for number, (arg, following) in enumerate(zip(args, [*args[1:], ""], strict=True)):
            if arg == "--cluster" and following != LOCAL and not _ADDRESS.fullmatch(following):
                given[number] = f"--cluster={LOCAL}"
        return super().parse_args(ctx, given)


def embed(  # one parameter a command-line option
    source: InArgument,
    out: OutOption,
    bundle: BundleOption = None,
    layer: LayerOption = None,
    input: InputOption = "auto",
    cluster: ClusterOption = None,
    processes: ProcessesOption = None,
) -> None:
    """Embed every cell of a file: obsm['X_scpalm']. Streamed: memory does not grow with the number of cells."""
    _check(cluster, processes, out)
    spec = RequestSpec(("embed",), layer=layer, input=input)
    if cluster is None:
        run_task(source, out, bundle, spec)
    else:
        embed_on_cluster(source, out, bundle, spec, None if cluster == LOCAL else cluster, processes)


def _check(cluster: str | None, processes: int | None, out: Path) -> None:
    """Raises BadParameter for options that do not fit together."""
    if cluster is None and processes is not None:
        raise typer.BadParameter("needs --cluster.", param_hint="--processes")
    if cluster not in (None, LOCAL) and processes is not None:
        raise typer.BadParameter("is for this machine; a cluster has the workers it has.", param_hint="--processes")
    if cluster is not None and out.suffix != ".zarr":
        raise typer.BadParameter("must end in .zarr: many processes cannot write one h5ad file.", param_hint="--out")


def embed_on_cluster(
    source: Path, out: Path, bundle: Path | None, spec: RequestSpec, address: str | None, processes: int | None
) -> None:
    """Embed on a Dask cluster, or on processes here. Raises MissingRuntimeError, InputError, ClusterError."""
    from scpalm.app.cli.progress import CellProgress
    from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle

    if not source.exists():
        raise InputError("no-such-file", f"There is no {source}.", mend="Name an .h5ad file or a zarr store.")
    try:
        from scpalm.app.offline.cluster.driver import ClusterOptions, embed_atlas
    except ModuleNotFoundError as error:
        raise MissingRuntimeError("Dask is not installed. Install it with: pip install 'scpalm[cluster]'") from error
    with CellProgress() as progress:
        opened = Bundle.load(bundle or DEFAULT_BUNDLE)
        embed_atlas(source, out, opened, spec, ClusterOptions(address, processes), progress)
