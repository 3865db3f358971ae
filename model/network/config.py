"""Sizes of the network, and the two presets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, get_args

Pooling = Literal["solve", "mean", "sum"]
ValueMap = Literal["linear", "two_layer"]
Affine = Literal["running", "learned", "none"]
NormPlace = Literal["pre", "post"]
HeadKind = Literal["token", "shared"]
SeesCell = Literal["none", "add", "prepend"]


_CHOICES = {
    "pooling": Pooling,
    "value_map": ValueMap,
    "norm": NormPlace,
    "head": HeadKind,
    "affine": Affine,
    "decoder_sees_cell": SeesCell,
}


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes and choices of both stages.

    Attributes:
        num_genes: G, genes of the vocabulary.
        num_tokens: N, tokens per cell and read-outs of the gene embedding.
        width: D, width of a token.
        num_layers: transformer layers of each encoder and decoder.
        num_heads: attention heads.
        num_codes: K, pathway codes.
        gene_width: d1 of the gene embedding.
        code_width: number of dimensions in which the nearest code is searched; 0 means D. Few dimensions keep all codes
            in use.
        pooling: how the genes are combined into the tokens' inputs. ``solve``: scores on the components of the corpus,
            corrected for the genes that a file measured and brought to length 1. ``mean``, as in the paper, or
            ``sum`` of the gene embeddings; these can be trained but not exported. The mean divides by the number of
            expressed genes, which varies threefold between cells of one type.
        components: R, width of the read-out f.
        ridge: strength of the correction for measured genes, see `Basis`. value_scale: scale of its values.
        view_width: H, width of the view head; 0 for none. view_hidden: its hidden width.
        value_map: the map of a gene's value: ``linear``, one layer, makes every gene affine in its value, so that the
            network can be exported; ``two_layer`` has a leaky_relu in between and is computed value by value.
        norm: LayerNorm before each branch of a transformer layer (``pre``) or after adding it (``post``).
        head: ``token``: each gene has its own read-out of its token; ``shared``: one for all tokens, which collapses.
        affine: the affine map of the codes: from ``running`` statistics, ``learned``, or ``none``.
        decoder_reads_f: whether the served decoder reads f and the length of z in addition to the codes.
        decoder_sees_cell: how h_C enters the decoder of stage 2: ``none``, as in the paper; ``add`` to every token; or
            ``prepend``.
    """

    num_genes: int
    num_tokens: int = 256
    width: int = 256
    num_layers: int = 6
    num_heads: int = 8
    num_codes: int = 128
    gene_width: int = 64
    code_width: int = 0
    pooling: Pooling = "solve"
    components: int = 256
    ridge: float = 0.1
    value_scale: float = 0.1
    view_width: int = 128
    view_hidden: int = 384
    value_map: ValueMap = "linear"
    norm: NormPlace = "pre"
    head: HeadKind = "token"
    affine: Affine = "running"
    decoder_reads_f: bool = True
    decoder_sees_cell: SeesCell = "add"

    def __post_init__(self) -> None:
        for name in ("num_genes", "num_tokens", "width", "num_layers", "num_heads", "num_codes", "gene_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but is {getattr(self, name)}")
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")
        if self.num_codes > 32767:
            raise ValueError(f"num_codes {self.num_codes} does not fit a 16-bit code index")
        self._check_read_out()
        if self.pooling == "solve" and self.value_map != "linear":
            raise ValueError(f"value_map={self.value_map} has no effect when pooling is solve: set pooling=mean")
        if self.code_width < 0:
            raise ValueError(f"code_width must be at least 0 (0 means width), but is {self.code_width}")
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} must be {' or '.join(get_args(kind))}, but is {getattr(self, name)!r}")

    def _check_read_out(self) -> None:
        if self.components < max(self.num_tokens - 1, 1):
            raise ValueError(f"components {self.components} must be at least num_tokens - 1, {self.num_tokens - 1}")
        if not (self.ridge > 0 and self.value_scale > 0):
            raise ValueError(f"ridge {self.ridge} and value_scale {self.value_scale} must be above 0")
        if self.view_width < 0 or self.view_hidden < 1:
            raise ValueError(f"view_width {self.view_width} must be at least 0, view_hidden {self.view_hidden} above 0")

    @property
    def genes_per_token(self) -> int:
        """S = ceil(G / N)."""
        return -(-self.num_genes // self.num_tokens)

    def as_dict(self) -> dict[str, int | float | str]:
        """All sizes and choices by name; JSON."""
        return asdict(self)


PRESETS: dict[str, dict[str, int]] = {
    # Paper, Table 2.
    "base": {"num_tokens": 256, "width": 256, "num_layers": 6, "num_heads": 8, "num_codes": 128},
    # The default that ships with the package: trains in under two hours and serves on two CPU cores. d1 = 2 N lets the
    # spectral start fill all N read-outs. Four code dimensions keep 128 codes dense (training/LOG.md).
    "mini": {
        "num_tokens": 96,
        "width": 96,
        "num_layers": 2,
        "num_heads": 4,
        "num_codes": 128,
        "gene_width": 192,
        "code_width": 4,
    },
}


def preset(name: str, num_genes: int) -> NetworkConfig:
    """The sizes of a preset for a vocabulary of ``num_genes``. Raises ValueError for an unknown name."""
    if name not in PRESETS:
        raise ValueError(f"Unknown preset '{name}': choose {' or '.join(PRESETS)}.")
    return NetworkConfig(num_genes=num_genes, **PRESETS[name])  # type: ignore[arg-type]
