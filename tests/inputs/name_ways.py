"""Other ways to write the names of the genes."""

from __future__ import annotations

from collections.abc import Callable

import anndata as ad
import numpy as np

from tests.inputs.clean import Clean, way


def _renamed(cells: Clean, function: Callable[[str], str]) -> ad.AnnData:
    return cells.adata(names=[function(symbol) for symbol in cells.symbols])


@way()
def dots(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return _renamed(cells, lambda symbol: symbol.replace("-", "."))


@way()
def underscores(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return _renamed(cells, lambda symbol: symbol.replace("-", "_"))


@way()
def typeset_dashes(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return _renamed(cells, lambda symbol: symbol.replace("-", "\u2011") + "\u200b")


@way()
def capitals(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return _renamed(cells, str.upper)


@way("refused")
def small_letters(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return _renamed(cells, str.lower)


@way()
def prefix(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return _renamed(cells, lambda symbol: "hg19_" + symbol)


@way()
def quotes(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return _renamed(cells, lambda symbol: f'"{symbol}"')


@way()
def numbered_parts(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(names=[f"{symbol}|{number}" for number, symbol in enumerate(cells.symbols, 7)])


@way()
def made_unique(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    top = np.argsort(-cells.counts.sum(0))[:20]
    half = np.floor(cells.counts[:, top] / 2)
    counts = cells.counts.copy()
    counts[:, top] -= half
    names = cells.symbols + [
        f"{cells.symbols[i]}{mark}" for i, mark in zip(top, [".1", "-1", "--1", "_1"] * 5, strict=True)
    ]
    return cells.adata(np.concatenate([counts, half], axis=1), names)


@way()
def names_of_a_merged_table(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    some = set(rng.permutation(len(cells.symbols))[: len(cells.symbols) // 4].tolist())
    return cells.adata(names=[f"{s}_x" if i in some else s for i, s in enumerate(cells.symbols)])


@way("refused")
def two_merged_tables(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    names = [f"{symbol}{ending}" for ending in ("_x", "_y") for symbol in cells.symbols]
    return cells.adata(np.concatenate([cells.counts, cells.counts], axis=1), names)


@way()
def same_ending(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return _renamed(cells, lambda symbol: symbol + "_RNA")


@way()
def number_at_the_end(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return _renamed(cells, lambda symbol: symbol + "-1")


@way()
def printed_bytes(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return _renamed(cells, lambda symbol: str(symbol.encode()))


@way()
def exons_and_introns(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    exons = rng.binomial(cells.counts.astype(np.int64), 0.6).astype(np.float64)
    names = [symbol + mark for mark in ("_exon", "_intron") for symbol in cells.symbols]
    return cells.adata(np.concatenate([exons, cells.counts - exons], axis=1), names)


@way()
def symbols_in_a_column(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    made = cells.adata(names=[f"gene{i}" for i in range(len(cells.symbols))])
    made.var["Gene Short.Name"] = cells.symbols
    return made


@way()
def symbol_and_id(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(names=[f"{s}_{i}" if i else s for s, i in zip(cells.symbols, cells.ids, strict=True)])


@way()
def ids_with_versions(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(names=[f"{i}.7_2" if i else s for s, i in zip(cells.symbols, cells.ids, strict=True)])


@way("either")
def shifted_ids(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    made = cells.adata()
    made.var["gene_ids"] = cells.ids[1:] + cells.ids[:1]
    return made


@way()
def unspliced_columns(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    counts = cells.counts.astype(np.int64)
    unspliced = rng.binomial(counts, 0.25)
    ambiguous = rng.binomial(counts - unspliced, 0.35)
    names = [symbol + mark for mark in ("", "-U", "-A") for symbol in cells.symbols]
    values = np.concatenate([counts - unspliced - ambiguous, unspliced, ambiguous], axis=1)
    return cells.adata(values.astype(np.float64), names)
