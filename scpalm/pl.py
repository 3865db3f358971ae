"""Plots of results in an AnnData. Each returns its Axes and takes the options of `Drawing`, as in scanpy.

Needs matplotlib: ``pip install 'scpalm[plot]'``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scpalm.model.output.note import stored_note

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Drawing(TypedDict, total=False):
    """How to draw.

    Attributes:
        title: title of the plot.
        cmap: colour map of a heat map.
        ax: Axes to draw on. Default: those of a new figure.
        show: whether to show the figure. Default: unless ``ax`` or ``return_fig`` is given.
        return_fig: whether to return the Figure instead of the Axes.
    """

    title: str
    cmap: str
    ax: Axes
    show: bool | None
    return_fig: bool


_UNKNOWN, _NA_COLOR = "unknown", "lightgrey"
# Okabe and Ito's colours, which colour-blind readers can tell apart; the further ones are darker and lighter.
_COLORS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#7F7F7F"),
    *("#003B5C", "#7A5400", "#00523C", "#6B3F57", "#A5D8F3", "#6E3000", "#8C8400", "#3F3F3F"),
    *("#7FB8D8", "#F2CF7F", "#7FCEB9", "#E5BCD3", "#1F77B4", "#EAAE7F", "#B3A600", "#BFBFBF"),
)


def annotation(
    adata: AnnData,
    groupby: str | None = None,
    *,
    key: str = "scpalm_label",
    **drawing: Unpack[Drawing],
) -> Axes | Figure:
    """Share of each label in every group, or the number of cells of each label without ``groupby``.

    Args:
        adata: cells with labels, from `scpalm.tl.annotate`.
        groupby: column of ``obs`` with groups, such as clusters.
        key: column of ``obs`` with the labels. ``uns[key + "_colors"]`` has their colours, if it is there.
        **drawing: ``title``, ``cmap``, ``ax``, ``show`` and ``return_fig``; see `Drawing`.

    Returns:
        The Axes, or with ``return_fig`` the Figure.

    Raises:
        KeyError: a column is missing; the text says which function writes it.

    Example:
        >>> ax = scpalm.pl.annotation(adata, "leiden", show=False)
    """
    labels = _column(adata, key, "scpalm.tl.annotate")
    canvas = _Canvas.of(drawing)
    names = labels.value_counts().index.tolist()
    names.sort(key=lambda name: name == _UNKNOWN)  # keeps the order by size, unknown last
    colors = _palette(adata, key, names)
    if groupby is None:
        counts = labels.value_counts()[names]
        canvas.ax.barh(names[::-1], counts[::-1], color=[colors[name] for name in names[::-1]])
        canvas.ax.set_xlabel("cells")
    else:
        shares = pd.crosstab(_column(adata, groupby, "your clustering"), labels, normalize="index")[names]
        left = np.zeros(len(shares))
        for name in names:
            canvas.ax.barh(shares.index.astype(str), shares[name], left=left, color=colors[name], label=name)
            left += shares[name].to_numpy()
        canvas.ax.invert_yaxis()
        canvas.ax.set(xlabel="share of cells", ylabel=groupby, xlim=(0, 1))
        canvas.ax.legend(bbox_to_anchor=(1.02, 1), loc="upper left", frameon=False)
    return canvas.finish(key)


def coverage(
    adata: AnnData,
    **drawing: Unpack[Drawing],
) -> Axes | Figure:
    """What became of the genes of the file: matched by symbol, Ensembl id or alias, or left out and why.

    Args:
        adata: cells with ``uns["scpalm"]``, which every function of `scpalm.tl` writes.
        **drawing: ``title``, ``cmap``, ``ax``, ``show`` and ``return_fig``; see `Drawing`.

    Returns:
        The Axes, or with ``return_fig`` the Figure.

    Raises:
        KeyError: ``uns["scpalm"]`` is missing.

    Example:
        >>> ax = scpalm.pl.coverage(adata, show=False)
    """
    found = _note(adata)["coverage"]
    bars = {f"matched by {how}": int(found.get(f"by_{how}", 0)) for how in ("symbol", "ensembl", "alias")}
    bars |= {f"left out: {reason}": int(count) for reason, count in (found.get("left_out") or {}).items()}
    bars = {name: count for name, count in bars.items() if count}
    canvas = _Canvas.of(drawing)
    colors = [_COLORS[0] if name.startswith("matched") else _NA_COLOR for name in bars]
    canvas.ax.barh(list(bars)[::-1], list(bars.values())[::-1], color=colors[::-1])
    canvas.ax.set_xlabel("genes of the file")
    text = f"{found['genes_matched']:,} of {found['genes_in']:,} genes"
    return canvas.finish(text)


def pathways(
    adata: AnnData,
    groupby: str,
    *,
    n_codes: int = 20,
    **drawing: Unpack[Drawing],
) -> Axes | Figure:
    """Mean share of tokens that have each pathway code, by group: the codes that differ most between groups.

    Args:
        adata: cells with codes, from `scpalm.tl.pathways`.
        groupby: column of ``obs`` with groups.
        n_codes: number of codes to show.
        **drawing: ``title``, ``cmap``, ``ax``, ``show`` and ``return_fig``; see `Drawing`.

    Returns:
        The Axes, or with ``return_fig`` the Figure.

    Raises:
        KeyError: the codes or the column are missing.

    Example:
        >>> scpalm.tl.pathways(adata, summary=True)
        >>> ax = scpalm.pl.pathways(adata, "cell_type", show=False)
    """
    shares = _code_shares(adata)
    means = _means(adata, groupby, shares, [str(code) for code in range(shares.shape[1])])
    chosen = means.std().sort_values(ascending=False).index[:n_codes]
    return _heat_map(means[chosen], _Look("pathway code", "share of tokens", "viridis", "pathway codes"), drawing)


def ic50(
    adata: AnnData,
    groupby: str,
    *,
    n_drugs: int = 30,
    **drawing: Unpack[Drawing],
) -> Axes | Figure:
    """Predicted ln IC50 of each group minus the mean over groups: the drugs that differ most. Red: more sensitive.

    After ``scpalm.tl.ic50(adata, by=groupby)``, the values are those of the summed groups, minus the mean of each drug
    over the training lines. Single cells lie outside the domain of the drug-response head.

    Args:
        adata: cells with predictions, from `scpalm.tl.ic50`.
        groupby: column of ``obs`` with groups; best the one given to ``by``.
        n_drugs: number of drugs to show.
        **drawing: ``title``, ``cmap``, ``ax``, ``show`` and ``return_fig``; see `Drawing`.

    Returns:
        The Axes, or with ``return_fig`` the Figure.

    Raises:
        KeyError: the predictions or the column are missing.

    Example:
        >>> scpalm.tl.ic50(adata, by="cell_type")
        >>> ax = scpalm.pl.ic50(adata, "cell_type", show=False)
    """
    if (table := adata.uns.get(f"scpalm_ic50_by_{groupby}")) is not None:
        found = pd.DataFrame(table["ic50_relative"], index=table["groups"], columns=table["drugs"])
        differing = found.std().sort_values(ascending=False).index[:n_drugs]
        look = _Look("drug", "ln IC50 minus mean of training lines", "RdBu", "drug response", centered=True)
        return _heat_map(found[differing], look, drawing)
    if "X_scpalm_ic50" not in adata.obsm:
        raise KeyError("obsm has no 'X_scpalm_ic50': run scpalm.tl.ic50 first.")
    values = np.asarray(adata.obsm["X_scpalm_ic50"], dtype=np.float64)
    names = _note(adata).get("columns", {}).get("X_scpalm_ic50", [str(i) for i in range(values.shape[1])])
    means = _means(adata, groupby, values, [str(name) for name in names])
    centered = means - means.mean()
    chosen = centered.std().sort_values(ascending=False).index[:n_drugs]
    look = _Look("drug", "ln IC50 minus mean of groups", "RdBu", "drug response", centered=True)
    return _heat_map(centered[chosen], look, drawing)


@dataclass(frozen=True)
class _Look:
    x_label: str
    bar_label: str
    cmap: str
    title: str
    centered: bool = False


@dataclass(frozen=True, eq=False)
class _Canvas:
    ax: Any
    drawing: Drawing

    @classmethod
    def of(cls, drawing: Drawing, width: float = 6.0, height: float = 4.0) -> _Canvas:
        try:
            import matplotlib.pyplot as plt
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("Plots need matplotlib: pip install 'scpalm[plot]'") from error
        ax = drawing.get("ax")
        return cls(plt.subplots(figsize=(width, height), layout="constrained")[1] if ax is None else ax, drawing)

    def finish(self, title: str) -> Any:
        import matplotlib.pyplot as plt

        self.ax.set_title(self.drawing.get("title", title))
        show, return_fig = self.drawing.get("show"), self.drawing.get("return_fig", False)
        if show or (show is None and "ax" not in self.drawing and not return_fig):
            plt.show()
        return self.ax.figure if return_fig else self.ax


def _heat_map(table: pd.DataFrame, look: _Look, drawing: Drawing) -> Any:
    canvas = _Canvas.of(drawing, 2 + 0.28 * table.shape[1], 1.5 + 0.3 * len(table))
    limit = float(np.nanmax(np.abs(table.to_numpy()))) if look.centered else None
    limits = {} if limit is None else {"vmin": -limit, "vmax": limit}
    image = canvas.ax.imshow(table.to_numpy(), aspect="auto", cmap=drawing.get("cmap", look.cmap), **limits)
    canvas.ax.set_xticks(range(table.shape[1]), table.columns, rotation=90)
    canvas.ax.set_yticks(range(len(table)), table.index.astype(str))
    canvas.ax.set(xlabel=look.x_label, ylabel=table.index.name)
    canvas.ax.figure.colorbar(image, ax=canvas.ax, label=look.bar_label)
    return canvas.finish(look.title)


def _column(adata: AnnData, name: str, made_by: str) -> pd.Series:
    if name not in adata.obs:
        raise KeyError(f"obs has no column '{name}': run {made_by} first, or name another column.")
    return adata.obs[name].astype(str)


def _note(adata: AnnData) -> dict[str, Any]:
    if "scpalm" not in adata.uns:
        raise KeyError("uns has no 'scpalm': run one of scpalm.tl's functions first.")
    return stored_note(adata.uns["scpalm"])


def _code_shares(adata: AnnData) -> NDArray[np.float64]:
    """``[cells, codes]``, counted from the tokens if the shares themselves were not computed."""
    if "X_scpalm_pathway_shares" in adata.obsm:
        return np.asarray(adata.obsm["X_scpalm_pathway_shares"], dtype=np.float64)
    if "X_scpalm_pathways" not in adata.obsm:
        raise KeyError("obsm has no 'X_scpalm_pathways': run scpalm.tl.pathways first.")
    codes = np.asarray(adata.obsm["X_scpalm_pathways"])
    return np.stack([(codes == code).mean(axis=1) for code in range(int(codes.max()) + 1)], axis=1)


def _means(adata: AnnData, groupby: str, values: NDArray[np.float64], columns: list[str]) -> pd.DataFrame:
    table = pd.DataFrame(values, columns=columns, index=adata.obs_names)
    return table.groupby(_column(adata, groupby, "your clustering")).mean()


def _palette(adata: AnnData, key: str, names: list[str]) -> dict[str, str]:
    """The colours in ``uns["<key>_colors"]``, where scanpy keeps them; otherwise colour-blind-safe ones."""
    stored, column = adata.uns.get(f"{key}_colors"), adata.obs[key]
    if stored is not None and hasattr(column, "cat") and len(stored) == len(column.cat.categories):
        return dict(zip(map(str, column.cat.categories), map(str, stored), strict=True))
    colors = {name: _COLORS[i % len(_COLORS)] for i, name in enumerate(names)}
    return colors | {_UNKNOWN: _NA_COLOR}
