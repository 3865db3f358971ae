from __future__ import annotations

import sys

import pytest

from scpalm.app.cli.commands import embed as embed_module
from scpalm.app.cli.main import main


def called(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[object, ...] | int | str | None:
    """The arguments that reach the driver, or the exit status."""
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(embed_module, "embed_on_cluster", lambda *args: calls.append(args))
    monkeypatch.setattr(sys, "argv", ["scpalm", "embed", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
        sys.exit(0)
    return (str(calls[0][0]), str(calls[0][1]), *calls[0][4:]) if calls else caught.value.code


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["in.h5ad", "-o", "out.zarr", "--cluster"], ("in.h5ad", "out.zarr", None, None)),
        (["--cluster", "in.h5ad", "-o", "out.zarr"], ("in.h5ad", "out.zarr", None, None)),
        (["--cluster", "-o", "out.zarr", "in.h5ad", "--processes", "3"], ("in.h5ad", "out.zarr", None, 3)),
        (["in.zarr", "--cluster", "tcp://host:8786", "-o", "o.zarr"], ("in.zarr", "o.zarr", "tcp://host:8786", None)),
        (["in.zarr", "--cluster=host:8786", "-o", "o.zarr"], ("in.zarr", "o.zarr", "host:8786", None)),
        (["in.h5ad", "-o", "out.h5ad", "--cluster"], 2),
        (["in.h5ad", "-o", "out.h5ad", "--processes", "2"], 2),
        (["in.h5ad", "-o", "out.zarr", "--cluster", "host:1", "--processes", "2"], 2),
    ],
)
def test_the_cluster_address_is_optional(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: object
) -> None:
    assert called(monkeypatch, *arguments) == expected
