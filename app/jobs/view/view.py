"""The cells of a job that has succeeded: values of one column, gene or code for all cells, and sums by group."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scpalm.app.errors import UnknownColumnError
from scpalm.app.execution.execution import Execution
from scpalm.app.jobs.files import JobFiles
from scpalm.app.jobs.manifest import BODY_FILE, Manifest
from scpalm.app.jobs.store import JobStore
from scpalm.app.jobs.view.columns import Column, column_of_texts
from scpalm.app.jobs.view.expression import Expression, ExpressionWriter
from scpalm.app.jobs.view.imputed import ImputedPanel
from scpalm.app.parsing.upload import Upload, UploadHead
from scpalm.app.queue.transport import Turn
from scpalm.app.serving.model import ServedModel
from scpalm.app.storage.scratch import ensure_folder
from scpalm.app.storage.values import ResultSpace
from scpalm.model.genes.prepare import Prepared
from scpalm.model.tasks.impute import Impute

Source = Literal["obs", "result", "code", "map", "gene", "imputed"]
PANEL_GENES = 1_000  # imputed together with the first one, since that costs little more


@dataclass(frozen=True, eq=False)
class JobView:
    """The cells of a job.

    Attributes:
        files: files of the job.
        manifest: its request.
        model: the model that computed it.
        scratch: path for a folder of this request, which may not exist yet.
        lock: held while something is computed and stored, so that it happens once.
    """

    files: JobFiles
    manifest: Manifest
    model: ServedModel
    scratch: Path
    lock: asyncio.Lock

    async def describe(self) -> dict[str, Any]:
        """What there is to look at: number of cells, outputs, columns of ``obs`` with their colours, maps, the note."""
        facts = await asyncio.to_thread(JobStore(self.files).describe, self.manifest.model)
        with ExitStack() as local:
            seen = await self.model.parsers.view_facts(await self._upload(local))
        name, version, _ = self.manifest.model
        return {
            "model": {"name": name, "version": version},
            "num_cells": facts["num_cells"],
            "outputs": [
                {key: described[key] for key in ("name", "key", "width", "columns", "placement")}
                for described in facts["outputs"]
            ],
            "obs": list(seen.columns),
            "colors": {column: dict(colors) for column, colors in seen.colors.items()},
            "maps": list(seen.maps),
            "note": facts["note"],
        }

    async def cells(self) -> list[str]:
        """Names of the cells."""
        return (await self.expression()).cells

    async def column(self, source: Source, name: str) -> Column:
        """One value per cell, or two for a map. Raises UnknownColumnError, and the errors of the parser.

        ``name``: of the column of obs, output, map or gene; the number of a code.
        """
        if source == "obs":
            with ExitStack() as local:
                upload = replace(await self._upload(local), obs_columns=(name,))
                head = await self.model.parsers.head(upload)
            return await asyncio.to_thread(column_of_texts, head.obs[name])
        if source == "map":
            with ExitStack() as local:
                seen = await self.model.parsers.view_facts(await self._upload(local))
            return Column(_known(seen.maps.get(name), source, name))
        if source == "gene":
            return Column(await asyncio.to_thread((await self.expression()).gene, self.position_of(name)))
        if source == "imputed":
            return Column(await self._imputed(self.position_of(name)))
        return await asyncio.to_thread(self._code if source == "code" else self._result, name)

    def _result(self, name: str) -> Column:
        spec, values = _known(JobStore(self.files).output(name), "result", name)
        categories = spec.categories
        return Column(values[:, 0] if spec.width == 1 else values, categories)

    def _code(self, name: str) -> Column:
        codes = self.codes()
        number = int(name) if name.isascii() and name.isdigit() and len(name) < 6 else -1
        if not 0 <= number < self.model.info.num_codes:
            raise UnknownColumnError(f"This job has no code '{name[:50]}'.", field="name")
        return Column((codes == number).mean(axis=1, dtype=np.float64).astype(np.float32))

    def codes(self) -> NDArray[np.int32]:
        """``[B, N]`` the code of each token. Blocking. Raises UnknownColumnError if the job did not ask for them."""
        found = JobStore(self.files).output("pathways")
        if found is None or found[1].dtype != np.int32:
            raise UnknownColumnError("This job has no pathway codes. Start one with POST /jobs/{id}/more.")
        return found[1].astype(np.int32, copy=False)

    def position_of(self, gene: str) -> int:
        """Position of a gene in the vocabulary. Raises UnknownColumnError."""
        position = self.model.bundle.vocabulary.find(gene)[0]
        if position < 0:
            raise UnknownColumnError(
                f"The model does not know the gene '{gene[:50]}'. Use an HGNC symbol or an Ensembl id.", field="name"
            )
        return position

    # --- expression

    async def expression(self) -> Expression:
        """Expression by gene; read from the upload when it is asked for first."""
        async with self.lock:
            if not await asyncio.to_thread(Expression.exists, self.files):
                await self._write_expression()
        return await asyncio.to_thread(lambda: Expression(self.files, ensure_folder(self.scratch)))

    async def _write_expression(self) -> None:
        writer = ExpressionWriter(self.files, self.model.info.num_genes)
        kind = ""

        async def add(part: Prepared) -> None:
            nonlocal kind
            kind = part.input.detected
            await asyncio.to_thread(writer.add, part)

        await self._read(add)
        await asyncio.to_thread(writer.finish, kind)

    async def _read(self, take: Callable[[Prepared], Any]) -> None:
        with ExitStack() as local:
            async with aclosing(self.model.parsers.parse(await self._upload(local))) as parts:
                async for part in parts:
                    if not isinstance(part, UploadHead):
                        await take(part)

    async def _imputed(self, position: int) -> NDArray[np.float32]:
        """Imputed log1p CP10K ``[B]``, with the genes that vary most, which later calls then find stored."""
        expression = await self.expression()
        async with self.lock:
            panel = await asyncio.to_thread(ImputedPanel.find, self.files, position, self.scratch)
            if panel is None:
                genes = await asyncio.to_thread(expression.variable_genes, PANEL_GENES)
                panel = await self._impute(np.union1d(genes, [position]), len(expression.cells))
        return await asyncio.to_thread(panel.gene, position)

    async def _impute(self, genes: NDArray[np.int64], num_cells: int) -> ImputedPanel:
        tasks = (Impute.of_genes(genes, [str(gene) for gene in genes]),)
        folder = ensure_folder(self.scratch)
        lane = self.model.lane_of(num_cells)
        space = ResultSpace(folder, self.model.memory)
        async with Execution(self.model.transport, tasks, num_cells, Turn(lane), space) as execution:
            await self._read(execution.add)
            (output,) = await execution.outputs()
        return await asyncio.to_thread(ImputedPanel.store, self.files, genes, output.values, self.scratch)

    async def is_imputed(self, gene: str) -> bool:
        """Whether a gene has been imputed before, so that reading it costs nothing."""
        position = self.position_of(gene)
        return await asyncio.to_thread(ImputedPanel.find, self.files, position, self.scratch) is not None

    async def _upload(self, local: ExitStack) -> Upload:
        """The stored body of the job, available until ``local`` is closed."""
        body = self.files.local(BODY_FILE, ensure_folder(self.scratch))
        return self.manifest.upload(await asyncio.to_thread(local.enter_context, body))


def _known(found: Any, source: str, name: str) -> Any:
    if found is None:
        raise UnknownColumnError(f"This job has no {source} '{name[:50]}'.", field="name")
    return found


def names_of_groups(column: Column) -> Sequence[str]:
    """Names of the groups of a column. Raises UnknownColumnError for numbers."""
    if column.categories is None:
        raise UnknownColumnError("This column holds numbers. Choose one with groups of cells.", field="name")
    return column.categories
