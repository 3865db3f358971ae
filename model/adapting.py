"""Adapt a bundle to a user's cells: read, fit, compare on held-out cells, and write a bundle unless it is worse."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scpalm.model.adapter.adapter import ADAPTER_FILE, Adapter, Floats, OpenAdapter
from scpalm.model.adapter.fit import TrainingCells, fit_adapter
from scpalm.model.adapter.score import agreement, label_accuracy, thinned, unexplained
from scpalm.model.bundle import Bundle, write_manifest
from scpalm.model.errors import InputError
from scpalm.model.genes.rows import Rows
from scpalm.model.integration.integrate import can_integrate, check_batches, integrate
from scpalm.model.integration.overlap import overlap
from scpalm.model.io.cells import Source, column_of, open_cells
from scpalm.model.io.labels import Categories
from scpalm.model.progress import NoProgress, Progress
from scpalm.model.read_out.corrections import Corrections
from scpalm.model.sessions.base import network_config, read_basis
from scpalm.model.sessions.session import Session
from scpalm.model.stream import CellReader

if TYPE_CHECKING:
    from anndata import AnnData

    from scpalm.model.engine import Engine

FEWEST_CELLS = 60
# A score of n held-out cells may get worse by this much over the square root of n, about its standard error.
_TOLERANCE = 0.5
_SCORED_CELLS = 1000
_RECONSTRUCTED_CELLS = 200


@dataclass(frozen=True)
class AdaptOptions:
    """How to adapt.

    Attributes:
        label_key: column of obs with cell types, to bring cells of a type together; "" for none: clusters are used.
        batch_key: column of obs with batches, whose differences are to shrink; "" for none.
        name: of the new model; "": the old name and ``-adapted``.
        held_out: share of cells that are kept for the comparison.
        force: write the bundle even if it is worse on them.
        seed: of the split and of all else that is random.
    """

    label_key: str = ""
    batch_key: str = ""
    name: str = ""
    held_out: float = 0.2
    force: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Comparison:
    """One score of held-out cells.

    Attributes:
        name: in words. higher: whether higher is better. cells: number of cells it was measured on.
        before, after: its values.
    """

    name: str
    higher: bool
    cells: int
    before: float
    after: float

    @property
    def worse(self) -> bool:
        """Whether the adapted embedding is worse by more than chance."""
        change = self.after - self.before if self.higher else self.before - self.after
        return change < -_TOLERANCE / self.cells**0.5


class WorseError(InputError):
    """The adapted embedding is worse on held-out cells, so no bundle was written."""


@dataclass(frozen=True, eq=False)
class _Cells:
    rows: Rows
    totals: NDArray[np.float64]
    embedding: Floats
    labels: Categories | None
    batches: Categories | None

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, chosen: NDArray[np.int64]) -> _Cells:
        rows = Rows.concat([self.rows.slice(int(at), int(at) + 1) for at in chosen])
        return _Cells(
            rows,
            self.totals[chosen],
            self.embedding[chosen],
            _select(self.labels, chosen),
            _select(self.batches, chosen),
        )


def adapt_bundle(
    bundle: Bundle,
    session: Session,
    sources: Sequence[Source],
    out: Path,
    options: AdaptOptions = AdaptOptions(),
    progress: Progress | None = None,
) -> list[Comparison]:
    """Write to ``out`` a copy of the bundle whose embedding is adapted to the cells; return the comparison.

    Raises:
        InputError: the cells cannot be used, there are too few, or ``out`` exists.
        WorseError: a score of the held-out cells is worse; nothing was written.
    """
    if out.exists():
        raise InputError("out-exists", f"{out} exists already.", hint="Choose another folder or remove it.")
    cells = _read(bundle, session, sources, options, progress or NoProgress())
    order = np.random.default_rng(options.seed).permutation(len(cells)).astype(np.int64)
    num_held_out = max(20, int(options.held_out * len(cells)))
    held_out, train = cells.select(np.sort(order[:num_held_out])), cells.select(np.sort(order[num_held_out:]))
    adapter = _fit(train, session, len(bundle.vocabulary), options.seed)
    scores = _compare(bundle, session, OpenAdapter(adapter, Corrections(adapter.own)), train, held_out)
    if not options.force and (worse := [score for score in scores if score.worse]):
        changes = ", ".join(f"{score.name} {score.before:.3f} -> {score.after:.3f}" for score in worse)
        raise WorseError(
            "adapted-is-worse",
            f"The adapted model is worse on {len(held_out)} held-out cells ({changes}), so it was not written.",
            hint="Use the unchanged model, give --label-key, or write it anyway with --force.",
        )
    whole = _fit(cells, session, len(bundle.vocabulary), options.seed)
    _write(bundle, out, whole, _card(bundle, cells, len(held_out), scores, sources, options))
    return scores


def _read(
    bundle: Bundle, session: Session, sources: Sequence[Source], options: AdaptOptions, progress: Progress
) -> _Cells:
    rows, totals, embeddings = list[Rows](), list[NDArray[np.float64]](), list[Floats]()
    labels, batches = list[str](), list[str]()
    for number, source in enumerate(sources):
        with open_cells(source) as opened:
            if options.label_key:
                labels += _texts(column_of(opened, options.label_key))
            # Without a column, each file is a batch.
            batches += (
                _texts(column_of(opened, options.batch_key))
                if options.batch_key
                else [f"file {number + 1}"] * opened.num_cells
            )
            progress.start(opened.num_cells)
            for prepared in CellReader(bundle, opened):
                rows.append(prepared.rows)
                totals.append(prepared.totals)
                embeddings.append(session.encode(prepared.rows, tokens=False).embedding)
                progress.advance(len(prepared.rows))
    found = _Cells(
        Rows.concat(rows),
        np.concatenate(totals),
        np.concatenate(embeddings),
        Categories.of(labels) if options.label_key else None,
        Categories.of(batches) if len(set(batches)) > 1 else None,
    )
    if len(found) < FEWEST_CELLS:
        raise InputError(
            "too-few-cells",
            f"There are {len(found)} cells; {FEWEST_CELLS} are needed to adapt a model.",
            hint="Add cells, or use the unchanged model.",
        )
    if found.batches is not None:
        check_batches(found.batches)
    if found.labels is not None and len(found.labels.names) < 2:
        raise InputError(
            "one-label",
            f"The column '{options.label_key}' has {len(found.labels.names)} labels; two are needed.",
            hint="Name another column, or leave --label-key out.",
        )
    return found


def _texts(column: Categories) -> list[str]:
    return [column.names[code] if code >= 0 else "" for code in column.codes]


def _select(column: Categories | None, chosen: NDArray[np.int64]) -> Categories | None:
    return None if column is None else Categories(column.names, column.codes[chosen])


def _fit(cells: _Cells, session: Session, num_genes: int, seed: int) -> Adapter:
    space = None
    if cells.labels is None and cells.batches is not None and can_integrate():
        # Clusters that span the batches, so that what differs between batches counts as variation within a type.
        space = integrate(cells.embedding, session.info.num_components, cells.batches).values
    training = TrainingCells(cells.rows, cells.embedding, session.info.num_components, cells.labels, space)
    return fit_adapter(training, num_genes, seed=seed)


def _compare(
    bundle: Bundle, session: Session, adapter: OpenAdapter, train: _Cells, held_out: _Cells
) -> list[Comparison]:
    before = train.embedding, held_out.embedding
    after = adapter.apply(train.rows, before[0]), adapter.apply(held_out.rows, before[1])
    scores = []
    if train.labels is not None and held_out.labels is not None and (held_out.labels.codes >= 0).any():
        codes = train.labels.codes, held_out.labels.codes
        pair = (label_accuracy(one[0], codes[0], one[1], codes[1]) for one in (before, after))
        scores.append(Comparison("label accuracy (15 nearest)", True, len(held_out), *pair))
    if held_out.batches is not None and len(held_out) >= FEWEST_CELLS:
        count = len(held_out.batches.names)
        pair = (float(overlap(one[1], held_out.batches.codes, count).mean()) for one in (before, after))
        scores.append(Comparison("overlap of batches", True, len(held_out), *pair))
    some = held_out.select(np.arange(min(len(held_out), _SCORED_CELLS)))
    halves = [thinned(some.rows, some.totals, 0.5, seed) for seed in (1, 2)]
    plain = [session.encode(half, tokens=False).embedding for half in halves]
    adapted = [adapter.apply(half, embedding) for half, embedding in zip(halves, plain, strict=True)]
    pair = (agreement(one[0], one[1], among) for one, among in ((plain, before[0]), (adapted, after[0])))
    scores.append(Comparison("agreement of two halves of the counts", True, len(some), *pair))
    few = some.rows.slice(0, min(len(some), _RECONSTRUCTED_CELLS))
    basis, own = read_basis(bundle, network_config(bundle)), adapter.adapter.own
    pair = (unexplained(few, bases) for bases in ((basis, own.select(0)), (basis, own)))
    scores.append(Comparison("variance left unexplained", False, len(few), *pair))
    return scores


def _card(
    bundle: Bundle,
    cells: _Cells,
    held_out: int,
    scores: Sequence[Comparison],
    sources: Sequence[Source],
    options: AdaptOptions,
) -> dict[str, Any]:
    return {
        "name": options.name or f"{bundle.name}-adapted",
        "files": [Path(source).name if isinstance(source, str | Path) else "AnnData" for source in sources],
        "cells": len(cells),
        "held_out_cells": held_out,
        "labels": list(cells.labels.names) if cells.labels is not None else [],
        "batches": list(cells.batches.names) if cells.batches is not None else [],
        "seed": options.seed,
        "held_out": [asdict(score) for score in scores],
    }


def _write(bundle: Bundle, out: Path, adapter: Adapter, card: dict[str, Any]) -> None:
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(bundle.path, partial)
    (partial / ADAPTER_FILE).write_bytes(adapter.as_bytes())
    manifest = {key: value for key, value in bundle.manifest.items() if key != "files"}
    name = card.pop("name")
    write_manifest(partial, manifest | {"name": name, "adapter": {"of": bundle.name, "width": adapter.width, **card}})
    partial.rename(out)


def adapt(
    adata: AnnData,
    out: Path | str,
    options: AdaptOptions | None = None,
    *,
    bundle: Path | str | None = None,
) -> Engine:
    """Adapt the model to your cells, write the new bundle to ``out``, and open it.

    Args:
        adata: your cells, with raw counts.
        out: folder to create.
        options: columns with labels and batches, the name of the new model, and so on.
        bundle: the model to start from. Default: the one that ships with the package.

    Returns:
        The adapted model, opened.

    Raises:
        InputError: the cells cannot be used, there are too few, or ``out`` exists.
        WorseError: the adapted model is worse on held-out cells; nothing was written.

    Example:
        >>> engine = scpalm.adapt(adata, "mine", scpalm.AdaptOptions(label_key="cell_type", force=True))
        >>> engine.embed(adata)
    """
    from scpalm.model.engine import load

    engine = load(bundle)
    adapt_bundle(engine.bundle, engine.session, [adata], Path(out), options or AdaptOptions())
    return load(out)
