"""Batches on the device. On a GPU the next batch is read and copied while a step runs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor

from scpalm.training.data.batches import Feed

Item = TypeVar("Item")
Change = Callable[[Tensor], Tensor]


def map_tensors(item: Item, change: Change) -> Item:
    """A batch (a tensor, something with ``map``, or a list or tuple of these) with every tensor changed."""
    return cast(Item, _mapped(item, change))


def _mapped(item: Any, change: Change) -> Any:
    if isinstance(item, Tensor):
        return change(item)
    if isinstance(item, list):
        return [_mapped(part, change) for part in item]
    if isinstance(item, tuple):
        return tuple(_mapped(part, change) for part in item)
    return item.map(change)


def to_device(item: Item, device: torch.device) -> Item:
    """The same batch on another device. The host does not wait for the copy."""
    return map_tensors(item, lambda tensor: tensor.to(device, non_blocking=True))


class Copier(Generic[Item]):
    """Copies batches to a GPU on a separate stream, from pinned memory, next to the kernels of a step."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)

    def start(self, item: Item) -> tuple[Item, torch.cuda.Event]:
        """Start the copy. Returns the batch on the device and the event after which it is complete."""
        copied: dict[tuple[int, torch.dtype, torch.Size, tuple[int, ...]], Tensor] = {}

        def copy(tensor: Tensor) -> Tensor:
            # Thinned and whole cells share their measured genes, the largest tensor of a batch.
            key = tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
            if key not in copied:
                copied[key] = tensor.pin_memory().to(self._device, non_blocking=True)
            return copied[key]

        with torch.cuda.stream(self._stream):
            moved = map_tensors(item, copy)
            return moved, self._stream.record_event()

    def finish(self, item: Item, copied: torch.cuda.Event) -> Item:
        """Let the current stream, not the host, wait for the copy."""
        current = torch.cuda.current_stream(self._device)
        current.wait_event(copied)

        def keep(tensor: Tensor) -> Tensor:
            tensor.record_stream(current)  # the memory is reused only after the step that reads it
            return tensor

        return map_tensors(item, keep)


class DeviceFeed(Generic[Item]):
    """The batches of a `Feed` on a device.

    Args:
        ahead: read and copy the next batch in a thread; None: on a GPU only. It affects the speed only.
    """

    def __init__(self, feed: Feed[Item], device: torch.device, *, ahead: bool | None = None) -> None:
        on_gpu = device.type == "cuda"
        self._feed = feed
        self._copier: Copier[Item] | None = Copier(device) if on_gpu else None
        self._thread = ThreadPoolExecutor(1, "feed") if (on_gpu if ahead is None else ahead) else None
        self._next: tuple[int, Future[tuple[Item, torch.cuda.Event | None]]] | None = None

    def at(self, step: int) -> Item:
        """The batch of a step, on the device. Raises CorpusError."""
        if self._next is not None and self._next[0] == step:
            item, copied = self._next[1].result()
        else:
            self._forget()
            # In this thread, because the feed starts its workers here.
            item, copied = self._load(step)
        if self._thread is not None and step + 1 < self._feed.steps:
            self._next = step + 1, self._thread.submit(self._load, step + 1)
        else:
            self._next = None
        return item if copied is None or self._copier is None else self._copier.finish(item, copied)

    def _load(self, step: int) -> tuple[Item, torch.cuda.Event | None]:
        item = self._feed.at(step)
        return (item, None) if self._copier is None else self._copier.start(item)

    def _forget(self) -> None:
        """Wait until the thread has left the feed."""
        if self._next is not None:
            self._next[1].exception()
            self._next = None

    def close(self) -> None:
        """Stop the thread and the workers."""
        self._forget()
        if self._thread is not None:
            self._thread.shutdown()
        self._feed.close()
