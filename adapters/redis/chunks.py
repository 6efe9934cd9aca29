"""How much goes into one request, so that the server is never busy with one caller for long."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

ItemT = TypeVar("ItemT")

CHUNK_JOBS = 500
"""The most jobs of one request."""
CHUNK_BYTES = 4 * 1024 * 1024
"""The most bytes of one request or answer, but for the last item's."""


def in_chunks(items: Iterable[ItemT], size_of: Callable[[ItemT], int] = lambda _: 0) -> Iterator[list[ItemT]]:
    """Cut a batch into chunks that are bounded in number and, where ``size_of`` is given, in bytes."""
    chunk: list[ItemT] = []
    size = 0
    for item in items:
        added = size_of(item)
        if chunk and (len(chunk) >= CHUNK_JOBS or size + added > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += added
    if chunk:
        yield chunk
