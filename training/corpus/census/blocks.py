"""Download the cells of a query to h5ad files, block by block, so that a killed download continues where it ended."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scpalm.training.corpus.census.choice import Chosen, choose, count_tissues, quotas
from scpalm.training.corpus.census.reader import CensusQuery, CensusReader, open_census
from scpalm.training.corpus.errors import CorpusError

# About 12 million counts and 300 MB of memory.
BLOCK_CELLS = 4096
PLAN = "plan.json"
CELLS = "cells.npz"


@dataclass(frozen=True)
class Download:
    """A finished download.

    Attributes:
        folder: to be removed when the corpus is built. files: h5ad, each with cells of one data set.
        origin: what to record in ``corpus.json``.
    """

    folder: Path
    files: list[Path]
    origin: dict[str, Any]


def download(
    query: CensusQuery,
    folder: Path,
    progress: Callable[[str, int], None] = lambda name, cells: None,
    block_cells: int = BLOCK_CELLS,
) -> Download:
    """Write the chosen cells to ``folder``. A second call continues after the last finished block.

    Raises:
        CorpusError: no cell passes the filter, the census cannot be read, or the folder holds another query's cells.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open_census(query) as census:
        request = {**asdict(query), "release": census.release, "block_cells": block_cells}
        if not (folder / PLAN).exists():
            _write_plan(folder, request, census)
        plan = json.loads((folder / PLAN).read_text())
        if plan["request"] != request:
            changed = next(name for name in request if plan["request"].get(name) != request[name])
            raise CorpusError(
                f"{folder} holds an unfinished download with another {changed} ({plan['request'].get(changed)!r}). "
                "Repeat that command to finish it, or remove the folder."
            )
        files = []
        for number, (joinid, dataset) in enumerate(_blocks(folder, block_cells)):
            path = folder / f"census-{number:05d}.h5ad"
            if not path.exists():
                _write_block(path, census, joinid, dataset)
            files.append(path)
            progress(path.name, len(joinid))
    return Download(folder, files, {name: plan[name] for name in ("request", "available", "chosen")})


def remove(finished: Download) -> None:
    """Delete the downloaded files."""
    shutil.rmtree(finished.folder, ignore_errors=True)


def _write_plan(folder: Path, request: dict[str, Any], census: CensusReader) -> None:
    available = count_tissues(census.cells())
    if not available:
        raise CorpusError(f"No cell of {census.release} passes the filter: {request['value_filter']}")
    quota = quotas(available, request["max_cells"])
    cells = choose(census.cells(), quota, request["seed"])
    names, code = np.unique(cells.dataset.astype(str), return_inverse=True)
    np.savez(folder / CELLS, joinid=cells.joinid, names=names, code=code)
    # The plan comes last and in one step: with it, the cells are complete.
    _replace(folder / PLAN, json.dumps({"request": request, "available": available, "chosen": quota}, indent=1))


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


def _blocks(folder: Path, block_cells: int) -> Iterator[tuple[NDArray[np.int64], str]]:
    """Cells of one data set each, with ascending numbers."""
    with np.load(folder / CELLS) as saved:
        cells = Chosen(saved["joinid"], saved["names"][saved["code"]].astype(object))
    ends = np.flatnonzero(np.append(cells.dataset[1:] != cells.dataset[:-1], True)) + 1
    for start, end in zip(np.append(0, ends[:-1]), ends, strict=True):
        for first in range(start, end, block_cells):
            yield cells.joinid[first : min(first + block_cells, end)], str(cells.dataset[start])


def _write_block(path: Path, census: CensusReader, joinid: NDArray[np.int64], dataset: str) -> None:
    partial = path.with_name(path.name + ".partial")
    census.block(joinid, dataset).write_h5ad(partial, compression="lzf")
    os.replace(partial, path)
