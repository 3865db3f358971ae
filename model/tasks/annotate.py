"""The type of each cell, from the reference of the model or from labelled cells that came with the request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, Field

from scpalm.model.annotation.bundled import reference_of
from scpalm.model.annotation.labelled import LabelledCells
from scpalm.model.annotation.reference import UNKNOWN, Reference
from scpalm.model.annotation.vote import vote
from scpalm.model.bundle import Bundle
from scpalm.model.errors import ParameterError
from scpalm.model.io.labels import Categories, LabelledBy
from scpalm.model.sessions.session import Encoded, Session, SessionInfo
from scpalm.model.tasks.answer import TaskAnswer
from scpalm.model.tasks.registry import register
from scpalm.model.tasks.task import (
    BoundTask,
    OutputSpec,
    Recipe,
    RecipeError,
    Task,
    TaskContext,
    TaskOptions,
    Values,
)

_DEFAULT_LABEL = LabelledBy().label
_COLUMNS = ("label", "second_label", "nearest_label", "cell_type", "probability", "distance", "unknown")
_VOTED = ("voted_label", "vote_share")
ANNOTATION_TENSORS = (*_COLUMNS, *_VOTED)
ANNOTATION_TEXTS = ("label", "second_label", "nearest_label", "cell_type", "voted_label")


def _text(value: object) -> object:
    return "" if value is None else value


class AnnotateOptions(TaskOptions):
    """Which labels, and whether cells of a group share theirs."""

    vote: Annotated[str, BeforeValidator(_text)] = Field(
        "",
        description="Column of obs with groups of cells, such as clusters: also returns the label that most cells of "
        "the group have, and the share of the group that has it.",
        max_length=200,
    )
    reference_label: Annotated[str, BeforeValidator(_text)] = Field(
        _DEFAULT_LABEL,
        description="Column of the reference's obs with the labels, for requests with a file `reference`.",
        max_length=200,
    )
    reference_layer: Annotated[str, BeforeValidator(_text)] = Field(
        "",
        description="Matrix of the reference to use: `X`, `raw` for raw.X, or the name of a layer. Default: the one "
        "that holds the counts.",
        max_length=200,
    )


class AnnotationNote(BaseModel):
    """What cells were labelled with."""

    reference: Literal["the model's", "the file"]
    labels: list[str] = Field(description="All labels of the reference.")
    unknown_beyond: float = Field(description="Cells with a larger `distance` are unknown.")
    cell_ontology: dict[str, str] = Field(description="Cell Ontology id of each name that has one.")


class AnnotateAnswer(TaskAnswer):
    """Cell types."""

    is_list = True
    example: ClassVar[Mapping[str, Any]] = {
        "columns": ["label"],
        "shape": [2, 1],
        "values": [["T cell"], ["unknown"]],
        "label": ["T cell", "unknown"],
        "second_label": ["natural killer cell", "macrophage"],
        "nearest_label": ["T cell", "monocyte"],
        "cell_type": ["CD4-positive, alpha-beta T cell", "classical monocyte"],
        "probability": [0.94, 0.41],
        "distance": [0.72, 1.9],
        "unknown": [0, 1],
        "annotation": {
            "reference": "the model's",
            "labels": ["T cell", "monocyte"],
            "unknown_beyond": 1.56,
            "cell_ontology": {"T cell": "CL:0000084"},
        },
    }

    values: list[list[str]] = Field(description="The labels again, one row per cell.")  # type: ignore[assignment]
    label: list[str] = Field(description="Broad type of each cell; `unknown` for cells too far from the reference.")
    second_label: list[str] = Field(description="The second most probable label.")
    nearest_label: list[str] = Field(description="The label without the threshold for `unknown`.")
    cell_type: list[str] = Field(description="More specific type, of the closest cells with that label.")
    probability: list[float] = Field(description="Probability of `nearest_label`.")
    distance: list[float] = Field(description="Distance from the reference.")
    unknown: list[int] = Field(description="1 for cells too far from the reference, otherwise 0.")
    voted_label: list[str] | None = Field(None, description="With `vote`: label of most cells of the group.")
    vote_share: list[float] | None = Field(None, description="With `vote`: share of the group with that label.")
    annotation: AnnotationNote


@dataclass(frozen=True, eq=False)
class Labels:
    """What cells can be labelled with.

    Attributes:
        reference: labelled cells.
        details: readable name of the cells of each group of the reference, or None if there are only labels.
        ontology_ids: Cell Ontology ids by name.
        labelled: the cells that came with the request, or None for the reference of the model.
    """

    reference: Reference
    details: Categories | None = None
    ontology_ids: Mapping[str, str] | None = None
    labelled: LabelledCells | None = None


def labels_of(bundle: Bundle, width: int, labelled: LabelledCells | None) -> Labels:
    """The labels of the model, or of labelled cells. Raises MissingPartError, InputError."""
    if labelled is not None:
        # As a worker gets them.
        rounded = LabelledCells(labelled.array.astype(np.float16), labelled.labels)
        return Labels(Reference.of(rounded.array, rounded.labels), labelled=rounded)
    bundled = reference_of(bundle, width)
    return Labels(bundled.reference, bundled.details, bundled.ontology_ids)


class Annotate(BoundTask):
    """Columns of ``obs``, each ``[B, 1]``: labels as codes, probability, distance, and 1 for unknown cells.

    Args:
        labels: what cells can be labelled with.
        votes: whether there is a vote. groups: ``[cells]`` the group of each cell; a worker needs none.
    """

    name = "annotate"
    needs_tokens = False

    def __init__(self, labels: Labels, *, votes: bool = False, groups: Categories | None = None) -> None:
        self._labels, self._groups, self.concludes = labels, groups, votes
        names = labels.reference.names
        texts = {
            "label": (*names, UNKNOWN),
            "second_label": names,
            "nearest_label": names,
            "cell_type": names if labels.details is None else labels.details.names,
            "voted_label": (*names, UNKNOWN),
        }
        columns = (*_COLUMNS, *(_VOTED if votes else ()))
        self.outputs = tuple(_output(column, texts.get(column)) for column in columns)

    def run(self, session: Session, encoded: Encoded, first: int) -> dict[str, Values]:
        found = self._labels.reference.annotate(encoded.embedding)
        details = self._labels.details
        label = np.where(found.unknown, len(found.names), found.nearest)
        columns: dict[str, NDArray[np.generic]] = {
            "label": label,
            "second_label": found.second,
            "nearest_label": found.nearest,
            "cell_type": found.nearest if details is None else details.codes[found.group],
            "probability": found.probability,
            "distance": found.distance,
            "unknown": found.unknown,
        }
        if self.concludes:
            columns |= {"voted_label": label, "vote_share": np.ones(len(label))}
        return {
            output.name: cast(Values, columns[column][:, None].astype(output.dtype, copy=False))
            for output in self.outputs
            for column in output.columns or ()
        }

    def conclude(self, values: Mapping[str, Values]) -> Mapping[str, Values]:
        assert self._groups is not None
        label = values[_name("label")][:, 0].astype(np.int32)
        winner, share = vote(label, self._groups.codes, len(self._labels.reference.names) + 1)
        return {_name("voted_label"): winner[:, None], _name("vote_share"): share[:, None]}

    def metadata(self) -> dict[str, object]:
        labels = self._labels
        return {
            "annotation": {
                "reference": "the model's" if labels.labelled is None else "the file",
                "labels": list(labels.reference.names),
                "unknown_beyond": labels.reference.calibration.threshold,
                "cell_ontology": dict(labels.ontology_ids or {}),
            }
        }

    def recipe(self, first: int, num_rows: int) -> Recipe:
        settings: dict[str, object] = {"votes": self.concludes}
        labelled = self._labels.labelled
        if labelled is None:
            return Recipe(first, settings)
        # The wire format has no code for half precision.
        arrays: dict[str, NDArray[Any]] = {
            "array": labelled.array.astype(np.float16).view(np.uint16),
            "codes": labelled.labels.codes,
        }
        return Recipe(first, settings | {"names": list(labelled.labels.names)}, arrays)


def _name(column: str) -> str:
    """Name of an output: the first one has the task's."""
    return "annotate" if column == "label" else f"annotate_{column}"


def _output(column: str, texts: tuple[str, ...] | None) -> OutputSpec:
    dtype = np.int32 if texts is not None or column == "unknown" else np.float32
    return OutputSpec(_name(column), f"scpalm_{column}", 1, dtype, columns=(column,), placement="obs", categories=texts)


@register
class AnnotateTask(Task[AnnotateOptions]):
    """Cell types."""

    name = "annotate"
    summary = (
        "The type of each cell, by the model's reference. A form may have a second file, "
        "`reference`, with labelled cells to use instead. A cell's answer does not depend on the other cells; only "
        "`vote` does."
    )
    result = (
        "`label`: broad type, `unknown` for cells too far from the reference; `second_label`; `nearest_label`: the "
        "label without that threshold; `cell_type`: more specific, of the closest cells with that label; `probability` "
        "of `nearest_label`; `distance`; `unknown`: 0 or 1. With `vote`: `voted_label` and `vote_share`. In h5ad, "
        "columns `scpalm_label` and so on of `obs`."
    )
    options = AnnotateOptions
    answer = AnnotateAnswer
    tensors: ClassVar[Mapping[str, str]] = {_name(column): column for column in ANNOTATION_TENSORS}
    reads_labelled = True
    binds_quickly = False

    def obs_columns(self, options: AnnotateOptions) -> tuple[str, ...]:
        return (options.vote,) if options.vote else ()

    def labelled_by(self, options: AnnotateOptions) -> LabelledBy:
        return LabelledBy(options.reference_label or _DEFAULT_LABEL, options.reference_layer or None)

    def bind(self, options: AnnotateOptions, context: TaskContext) -> BoundTask:
        if context.labelled is None:
            for name, given in (
                ("reference_label", options.reference_label not in ("", _DEFAULT_LABEL)),
                ("reference_layer", bool(options.reference_layer)),
            ):
                if given:
                    raise ParameterError(
                        f"'{name}' is for requests with a file of labelled cells, but there is none. Send the file in "
                        "the form field 'reference'.",
                        field=name,
                    )
        if options.vote and options.vote not in context.obs:
            raise ParameterError(f"The cells have no column '{options.vote}' in obs to vote by.", field="vote")
        labels = labels_of(context.bundle, context.info.embedding_width, context.labelled)
        return Annotate(labels, votes=bool(options.vote), groups=context.obs.get(options.vote))

    def rebuild(self, bundle: Bundle, info: SessionInfo, recipe: Recipe) -> BoundTask:
        votes = bool(recipe.settings.get("votes"))
        if "names" not in recipe.settings:
            return Annotate(labels_of(bundle, info.embedding_width, None), votes=votes)
        try:
            bits, codes = (np.ascontiguousarray(recipe.arrays[name]) for name in ("array", "codes"))
            names = tuple(map(str, recipe.settings["names"]))
            width = bits.shape[1]
            labels = _from_wire(names, width, bits.astype(np.uint16).tobytes(), codes.astype(np.int32).tobytes())
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise RecipeError(f"The labelled cells cannot be read ({error}).") from error
        return Annotate(labels, votes=votes)


@lru_cache(4)
def _from_wire(names: tuple[str, ...], width: int, bits: bytes, codes: bytes) -> Labels:
    """The labels in a recipe. Cached, because every batch of a request has the same."""
    array = np.frombuffer(bits, np.float16).reshape(-1, width)
    labelled = LabelledCells(array, Categories(names, np.frombuffer(codes, np.int32)))
    return Labels(Reference.of(array, labelled.labels), labelled=labelled)
