"""Build one corpus from many files, each with different genes, and report on each file."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scpalm.model.genes.rows import Rows
from scpalm.model.genes.vocabulary import Vocabulary
from scpalm.training.corpus.errors import CorpusError, naming
from scpalm.training.corpus.fingerprints import KeptOut, fingerprints
from scpalm.training.corpus.reader import FORMAT_VERSION
from scpalm.training.corpus.shards import ShardWriter
from scpalm.training.corpus.simulated.noise import RealCells, fit_noise
from scpalm.training.corpus.simulated.profiles import Profile, ProfileTable, read_profiles
from scpalm.training.corpus.simulated.simulate import Noise, SimulatedCells, SimulationOptions, simulate
from scpalm.training.corpus.source import CorpusOptions, Source

Progress = Callable[[str, int], None]


def build_corpus(
    out: Path,
    files: Sequence[Path],
    vocabulary: Vocabulary,
    options: CorpusOptions,
    *,
    never: Sequence[Path] = (),
    progress: Progress = lambda name, cells: None,
) -> dict[str, Any]:
    """Write ``out`` (whole or not at all) and return ``corpus.json``.

    Duplicate cells are dropped and counted. So are cells that are in a file of ``never`` (evaluation files), even when
    the two files list different genes. Cells drawn from the profiles of ``options.simulation`` follow the real ones.

    Raises:
        CorpusError: ``out`` exists, no cell is left, the disk is full, or a file is invalid (names file, cell, gene).
    """
    refuse_existing(out)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # left behind by a killed build
    try:
        partial.mkdir(parents=True)
        build = _Build(partial, vocabulary, options, progress)
        build.keep_out(never)
        for path in files:
            build.add_file(path)
        if options.simulation.files:
            build.add_profiles(options.simulation)
        meta = build.finish()
        partial.rename(out)
    except OSError as error:
        where = error.filename or partial
        raise CorpusError(f"{where} could not be written ({error.strerror or error}). Is the disk full?") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return meta


def refuse_existing(out: Path) -> None:
    """Raises CorpusError if there is something at ``out``."""
    if out.exists():
        raise CorpusError(f"{out} exists already. Choose another folder or remove it.")


class _Build:
    """A corpus in the making: what has been written so far, and what the description will say."""

    def __init__(self, partial: Path, vocabulary: Vocabulary, options: CorpusOptions, progress: Progress) -> None:
        self._partial, self._vocabulary, self._options, self._progress = partial, vocabulary, options, progress
        self._writer = ShardWriter(partial, options.shard_cells)
        self._kept_out = KeptOut(vocabulary)
        self._seen: set[bytes] = set()
        self._content = hashlib.blake2b(digest_size=16)  # identifies the cells and their order
        self._reports: list[dict[str, Any]] = []
        self._measured: list[NDArray[np.bool_]] = []
        self._tables: list[pd.DataFrame] = []
        self._simulation: dict[str, Any] = {}

    def keep_out(self, never: Sequence[Path]) -> None:
        for path in never:
            with naming(path):
                self._kept_out.add(path)

    def add_file(self, path: Path) -> None:
        source = Source(path, self._vocabulary, self._options)
        report: dict[str, Any] = {"file": path.name, "cells": 0, "duplicates": 0, "filtered": 0, "evaluation_cells": 0}
        with naming(path):
            for part in source.chunks(report):
                prints = fingerprints(part.rows, part.counts)
                forbidden = self._kept_out.among(part.rows, part.counts, source.measured)
                fresh = ~forbidden
                for i, fingerprint in enumerate(prints):
                    fresh[i] &= fingerprint not in self._seen
                    report["duplicates"] += fingerprint in self._seen
                    self._seen.add(fingerprint)
                report["evaluation_cells"] += int(forbidden.sum())
                picked = np.flatnonzero(fresh)
                self._add(part.rows, part.obs.assign(simulated=False), prints, picked)
                report["cells"] += len(picked)
                self._progress(path.name, len(part.rows))
        self._reports.append(report | source.summary)
        self._measured.append(source.measured)

    def add_profiles(self, simulation: SimulationOptions) -> None:
        """Draw cells from every fit column of every profile file. Raises CorpusError."""
        stems = [file.path.stem for file in simulation.files]
        if twice := next((stem for stem in stems if stems.count(stem) > 1), None):
            raise CorpusError(f"Two profile files are called '{twice}'. Their cells would be the same: rename one.")
        noise = self._noise(simulation)
        reports = []
        for file in simulation.files:
            table = read_profiles(file, self._vocabulary, min_genes=simulation.min_genes, skip=simulation.skip)
            reports.append(self._add_table(table, noise, simulation.cells))
        self._simulation = {"cells_per_profile": simulation.cells, **noise.as_dict(), "files": reports}

    def finish(self) -> dict[str, Any]:
        """Write the description. Raises CorpusError if there is no cell."""
        self._writer.flush()
        if not sum(self._writer.sizes):
            raise CorpusError(
                "No cell is left: every cell was filtered out or is a duplicate, and no profile is fit for sampling. "
                "Check the per-file report."
            )
        self._obs().to_parquet(self._partial / "obs.parquet")
        np.save(self._partial / "measured.npy", np.stack(self._measured))
        self._vocabulary.save(self._partial / "genes.parquet")
        meta = {
            "format_version": FORMAT_VERSION,
            "num_genes": len(self._vocabulary),
            "shard_cells": self._writer.sizes,
            "files": self._reports,
            "seed": self._options.seed,
            "held_out": self._options.held_out,
            "content": self._content.hexdigest(),
        }
        if self._simulation:
            meta["simulation"] = self._simulation
        if self._options.census:
            meta["census"] = self._options.census
        (self._partial / "corpus.json").write_text(json.dumps(meta, indent=1))
        return meta

    def _add(self, rows: Rows, obs: pd.DataFrame, prints: list[bytes], picked: NDArray[np.int64]) -> None:
        self._writer.add(rows, picked)
        held_out = [_held_out(prints[i], self._options) for i in picked]
        self._content.update(b"".join(prints[i] for i in picked))
        self._tables.append(obs.iloc[picked].assign(file=len(self._measured), held_out=held_out))

    def _noise(self, simulation: SimulationOptions) -> Noise:
        """What the options say; the rest is fitted to the real cells written so far."""
        depth, dispersion, noise = simulation.depth, simulation.dispersion, Noise()
        if self._tables and (depth is None or dispersion is None):
            self._writer.flush()
            is_counts = np.array([report.get("input") == "counts" for report in self._reports])
            noise = fit_noise(RealCells(self._obs(), self._writer.written().cell, np.stack(self._measured), is_counts))
        return Noise(
            noise.depth if depth is None else depth,
            noise.dispersion if dispersion is None else dispersion,
            noise.groups,
        )

    def _add_table(self, table: ProfileTable, noise: Noise, num_cells: int) -> dict[str, Any]:
        """Draw the cells of one file, a set of measured genes after another, and return the report on the file.

        Each set is a file of the corpus: its genes have a row in ``measured``.
        """
        name, filtered = table.path.name, 0
        for number, genes in enumerate(table.gene_sets):
            cells = dropped = num_profiles = 0
            for profile in table.profiles(number):
                num_profiles += 1
                for part in simulate(profile, genes.measured, noise, num_cells, (self._options.seed, table.path.stem)):
                    picked = np.flatnonzero(part.rows.lengths() >= max(self._options.min_genes, 1))
                    obs = _simulated_obs(table.path.stem, profile, part)
                    self._add(part.rows, obs, fingerprints(part.rows, part.counts), picked)
                    cells += len(picked)
                    dropped += len(part.rows) - len(picked)
                    self._progress(name, len(part.rows))
            counted = {"cells": cells, "duplicates": 0, "filtered": dropped, "evaluation_cells": 0}
            known = {"genes_in": genes.genes_in, "genes_matched": int(genes.measured.sum())}
            origin = {"simulated": True, "profiles": num_profiles, "input": "counts", "why": "drawn from profiles"}
            self._reports.append({"file": name, "gene_set": number} | counted | known | origin)
            self._measured.append(genes.measured)
            filtered += dropped
        return {"file": name, "profiles": len(table.set_of), "filtered": filtered, "skipped": table.skipped}

    def _obs(self) -> pd.DataFrame:
        return pd.concat(self._tables, ignore_index=True)


def _simulated_obs(stem: str, profile: Profile, part: SimulatedCells) -> pd.DataFrame:
    numbers = range(part.first, part.first + len(part.rows))
    return pd.DataFrame(
        {
            "cell": [f"{stem}|{profile.name}|{i}" for i in numbers],
            "total": part.totals,
            "dataset": stem,
            "tissue": profile.tissue,
            "cell_type": profile.name,
            "cell_type_id": "",
            "donor": "",
            "simulated": True,
        }
    )


def _held_out(fingerprint: bytes, options: CorpusOptions) -> bool:
    salted = hashlib.blake2b(fingerprint + options.seed.to_bytes(8, "little", signed=True), digest_size=8).digest()
    return int.from_bytes(salted, "little") / 2**64 < options.held_out
