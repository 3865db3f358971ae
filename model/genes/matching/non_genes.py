"""Columns that are no human genes: antibodies, peaks, spike-ins, control probes, metadata, genes of other species."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Values of feature_types (10x and others), in small letters without punctuation, that mean a gene.
_GENE_KINDS = frozenset({"geneexpression", "gene", "genes", "rna", "mrna", "gex", "transcript", "scrna", "snrna"})
_KINDS: tuple[tuple[str, str], ...] = (
    ("antibod|protein$|adt|^ab|cite|abseq|^prot$|surface", "antibody"),
    ("crispr|guide|grna|perturb", "guide"),
    ("multiplex|hashtag|hashing|hto|cmo|sampletag", "hashtag"),
    ("peak|atac|chromatin|accessib", "peak"),
    ("control|codeword|blank|negative|unassigned|deprecated|intergenic", "control probe"),
    ("spike|ercc", "spike-in"),
    ("repeat|transposable", "transposable element"),
    ("custom", "custom feature"),
)

_REPEATS = (
    r"(?:L1(?:HS|M|P)\w*|L2[a-d]?|HAL1\w*|Alu(?:J|S|Y)\w*|FLAM_\w+|FRAM|FAM|SVA_[A-F]|MIR(?:b|c|3|1_Amn)|"
    r"(?:LTR|MER|MLT|MamGyp|MARNA|UCON|Eulor)\d\w*|MST[A-D]\w*|THE1[A-D]\w*|Tigger\d+\w*|Charlie\d+\w*|"
    r"Zaphod\d*|Arthur\d+\w*|HERV(?:[A-Z]?\d*|IP\w*|K\w*|H\w*)-int|HERV\w*-int|\(\w+\)n|(?:GA|A|G|AT|GC)-rich)"
)
_PATTERNS: tuple[tuple[str, str], ...] = (
    (r"ERCC[-_.]?\d{3,5}|spike[-_ ]?in\S*|SIRV\d+|(?:Sequin|R1|R2)_\d+_\d+", "spike-in"),
    (r"(?:__)?(?:no_feature|too_low_aqual|not_aligned|alignment_not_unique)\w*|__ambiguous\w*", "read statistics"),
    (
        r"N_(?:unmapped|multimapping|noFeature|ambiguous)|Unassigned_\w+|\*|unmapped|unaligned|unassigned_reads|"
        r"unassigned|intergenic|no[-_ ]?gene|(?:all[-_ ])?other(?:[-_ ]genes)?|"
        r"(?:mt|mito|ribo|ercc)[-_ ](?:total|counts?)",
        "read statistics",
    ),
    (r"(?:chr)?(?:[1-9]|1\d|2[0-2]|[XYM]|MT|Un|KI\d+\S*|GL\d+\S*)[:_-]\d+[-_:]\d+(?:[_.:-]\S*)?", "peak"),
    (r"(?:GL|KI|JH)\d+\.\d[:_-]\d+[-_]\d+", "peak"),
    (
        r"(?:sg|g|non[-_]?target(?:ing)?|nt[-_]?)(?:RNA|[-_]?ctrl)[-_. ]?\S*|safe[-_]?targeting\S*|non[-_ ]?target\S*",
        "guide",
    ),
    (r"\S+[-_]sg(?:RNA)?[-_]?\d+|protospacer\S*|\S+_sgRNA\S*", "guide"),
    (
        r"(?:HTO|hash[-_. ]?tag|CMO|sample(?:[-_ ]?tag)?|multiseq|bar|MULTI)[-_. ]?\d+\S*|HTO[-_.]\S+|"
        r"hash[-_. ]?tag\S*",
        "hashtag",
    ),
    (
        r"\S*(?:TotalSeq|pAbO|AbSeq|antibody)\S{0,4}|\S+(?:[-_. ]ADT|[-_. ]AB|\(ADT\)|[-_.]prot(?:ein)?)(?:-\d)?",
        "antibody",
    ),
    (r"[A-D]0\d{3}", "antibody"),
    (r"(?:ADT|AB|prot(?:ein)?|antibody|CITE|anti[-_ ]?(?:human|mouse|rat))[-_. ]\S.*", "antibody"),
    (r"(?:mouse|rat|hamster|human)?[-_ ]?Ig[GM]\w*[-_. ]?(?:isotype|control|ctrl|Fc)\S*|isotype\S*", "antibody"),
    (
        r"(?:neg(?:ative)?[-_. ]?(?:control|ctrl|probe|prb|\d+$)|negprb|systemcontrol|blank|unassigned[-_. ]?codeword|"
        r"deprecated[-_. ]?codeword|falsecode|false[-_. ]?positive|intergenic[-_. ]?region|antisense[-_. ]|"
        r"genomic[-_. ]?control|positive[-_. ]?control|custom[-_. ]?control|background[-_. ]?probe)\S*",
        "control probe",
    ),
    (r"(?:BLANK|Blank|NegControl\w*|NegPrb\w*|Negative)[-_. ]?\d*", "control probe"),
    (
        r"(?:n(?:Count|Feature)s?[_.]\w+|n_?(?:genes|counts|umis?|features)(?:_\w+)?|total_(?:counts|umis?)\w*|"
        r"log1p_(?:total_counts|n_genes)\w*|pct_counts\w*|percent[._](?:mt|mito|ribo|rp[sl]?|hb)\w*|"
        r"(?:S|G2M|G2\.M)[._](?:Score|score)|Phase|phase|orig\.?_?ident|seurat_clusters|louvain|leiden|clusters?|"
        r"cell_?types?|batch|sample(?:_?id)?|donor(?:_?id)?|barcodes?|doublet_?scores?|predicted_doublets?|"
        r"(?:total|sum|row_?sums?|n_genes_by_counts|library_?sizes?|size_?factors?|(?:seq)?depth|n?(?:reads|umis))|"
        r"[xyz](?:_?(?:centroid|coord(?:inate)?s?|px|um|global_px|local_px))?|(?:center|pos)_?[xyz]|fov|"
        r"(?:cell|nucleus)?_?(?:area|volume|perimeter)|array_(?:row|col)|pxl_\w+_in_fullres|spatial_?\d|"
        r"cell_?(?:id|barcode|name)s?|(?:UMAP|TSNE|tSNE|PC)[-_. ]?\d+|Unnamed: ?\d+|age|sex|gender|tissue|condition)",
        "metadata column",
    ),
    (
        r"[dmst]?(?:e|E|s?f|m|az|A)?(?:GFP|RFP|YFP|BFP)\d?(?:[-_. ]\S*)?|(?:E|m)CFP\S*|"
        r"(?:td[-_]?tomato|tomato|mcherry|"
        r"m?venus|m?citrine|zs?green\d*|dsred\d*|turbo[a-z]fp|katushka|mkate\d*|mscarlet\S*|mneongreen|cerulean|"
        r"cre(?:ert2?)?|rtta\d?|tta|lacz|luc2?|luciferase|[rf]luc|d?cas9\S*|d?cas12a?|cas13\w?|puror?|puromycin\S*|"
        r"neor|blasticidin\S*|bsdr?|hygror?|wpre|flpo?|ires|t2a|p2a|sv40\S*|cmv\S*|tomato\S*|transgene\S*|"
        r"reporter\S*|lenti\S*|aav\S*|plasmid\S*|vector\S*|car[-_]?t?[-_]?(?:transgene|construct)\S*)",
        "reporter",
    ),
    (
        _REPEATS + r"(?:[:#-]\S+)?(?:[-_.]dup\d+)?|\S+:\S+:(?:LINE|SINE|LTR|DNA|Retroposon|Satellite|RC)\S*",
        "transposable element",
    ),
    (r"(?:LINE|SINE|ERVL?\w*|Satellite|Simple_repeat|Low_complexity)[-/:]\S+", "transposable element"),
    (r"ENS(?!G|R|T|P|E)[A-Z]{3,5}G\d{11}\S*", "gene of another species"),
    (r"(?:NC_(?!012920)\d{6}|MN908947|CY\d{6})(?:\.\d+)?(?:[-_:]\S*)?|GU280_gp\d+\S*", "viral gene"),
)
_NOT_A_GENE = re.compile(
    "|".join(f"(?P<r{number}>{pattern})" for number, (pattern, _) in enumerate(_PATTERNS)), re.IGNORECASE
)
_REASONS = [reason for _, reason in _PATTERNS]
_CASED = re.compile(_REPEATS)

_HUMAN = r"(?:GRCh3[78]|hg19|hg38|b37|human|homo[_ ]?sapiens|hsapiens|hs|T2T|CHM13)"
_OTHER = (
    r"(?:mm9|mm10|mm39|GRCm3[89]|mouse|mus[_ ]?musculus|mmusculus|mRatBN7|rn[67]|rat|BDGP6|dm[36]|drosophila|"
    r"danRer\d+|GRCz1[01]|zebrafish|sus[_ ]?scrofa|macaca\w*|rheMac\d+|Mmul_?\d*|HIV\S*|(?:h?SARS|s|h)?[-_]?CoV[-_]?2|"
    r"SARS2|EBV|HBV|CMV|HCMV|HPV\d*|KSHV|HSV[12]?|RSV|IAV|IBV|flu[-_]?[AB]?|influenza\w*|virus|viral|ZIKV|"
    r"DENV\d?|HCV|HTLV\d?|VZV)"
)
HUMAN_PREFIX = re.compile(rf"{_HUMAN}(?:[._]?p\d+)?(?:[-_ ]\w*?ensembl\w*)?[-_:.| ]+", re.IGNORECASE)
OTHER_PREFIX = re.compile(rf"{_OTHER}(?:[-_ ]\w*?ensembl\w*)?[-_:.| ]+", re.IGNORECASE)
_HUMAN_GENOME = re.compile(_HUMAN, re.IGNORECASE)
_OTHER_GENOME = re.compile(_OTHER, re.IGNORECASE)


def kind_reasons(kinds: Sequence[str]) -> dict[str, str]:
    """Types of columns that are no genes, each with the reason to leave those columns out.

    If some columns are ``Gene Expression``, all others are left out; else only those of a type that is known.
    """
    values = set(kinds)
    genes = {kind for kind in values if _letters(kind) in _GENE_KINDS or _letters(kind).endswith("expression")}
    found = {}
    for kind in values - genes - {""}:
        reason = next((reason for pattern, reason in _KINDS if re.search(pattern, _letters(kind))), None)
        if reason is not None or any(_letters(gene).endswith("geneexpression") for gene in genes):
            found[kind] = reason or f"feature type {kind[:40]}"
    # A file of one type only has nothing to leave out, unless that type is certainly no gene.
    return found


def foreign_genomes(genomes: Sequence[str]) -> set[str]:
    """References of other species, if some columns are of a human one."""
    values = set(genomes)
    if not any(_HUMAN_GENOME.match(value) for value in values):
        return set()
    return {value for value in values if _OTHER_GENOME.match(value)}


def name_reason(name: str) -> str | None:
    """Why a column with this name, which is not that of a gene, is left out; None if nothing speaks against it.

    Example:
        >>> name_reason("ERCC-00002")
        'spike-in'
    """
    match = _NOT_A_GENE.fullmatch(name)
    if match is None or match.lastgroup is None:
        return None
    reason = next(_REASONS[int(key[1:])] for key, value in match.groupdict().items() if value is not None)
    # The names of repeats are the only ones that depend on case.
    if reason == "transposable element" and ":" not in name and "/" not in name and not _CASED.match(name):
        return None
    return reason


def _letters(kind: str) -> str:
    return re.sub(r"[^a-z]", "", kind.lower())
