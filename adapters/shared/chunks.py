"""Batches cut into chunks, so that one caller never keeps a broker busy for long."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

ItemT = TypeVar("ItemT")


def in_chunks(
    items: Iterable[ItemT],
    max_items: int,
    *,
    max_bytes: int | None = None,
    size_of: Callable[[ItemT], int] = lambda _: 0,
) -> Iterator[list[ItemT]]:
    """Cut a batch into chunks, in order.

    Args:
        items: The batch.
        max_items: The most items of a chunk.
        max_bytes: The most bytes of a chunk; an item that is larger has a chunk of its own.
        size_of: How many bytes an item has.
    """
    chunk: list[ItemT] = []
    size = 0
    for item in items:
        added = size_of(item)
        if chunk and (len(chunk) >= max_items or (max_bytes is not None and size + added > max_bytes)):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += added
    if chunk:
        yield chunk
