"""What a task adds to a JSON answer, for the API description. Codecs write the JSON; nothing is validated with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, Field


class TaskAnswer(BaseModel):
    """The members of a JSON answer that a task declares. Subclass it for members beyond these.

    Attributes:
        example: the members of an answer for two cells.
        is_list: whether the main output is a list with one item per cell, such as labels, where the task is asked for
            with ``also``. Otherwise it is a `Matrix` named after the task.
    """

    example: ClassVar[Mapping[str, Any]] = {"shape": [2, 2], "values": [[0.12, -0.53], [0.98, 0.07]]}
    is_list: ClassVar[bool] = False

    columns: list[str] | None = Field(None, description="Names of the columns, if they have names.")
    values: list[list[float]] = Field(description="One row per cell.")


class Matrix(BaseModel):
    """One row per cell."""

    columns: list[str] | None = Field(None, description="Names of the columns, if they have names.")
    shape: list[int] = Field(description="[cells, width].")
    values: list[list[float]] = Field(description="One row per cell.")
