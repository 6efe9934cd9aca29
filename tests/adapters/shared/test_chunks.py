"""Batches cut into chunks."""

from mindtrace.jobs.adapters.shared.chunks import in_chunks


def test_a_batch_is_cut_by_number() -> None:
    assert list(in_chunks(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(in_chunks([], 2)) == []


def test_a_batch_is_cut_by_size_and_a_large_item_stands_alone() -> None:
    chunks = in_chunks(["aa", "bb", "cccccc", "d"], 9, max_bytes=4, size_of=len)
    assert list(chunks) == [["aa", "bb"], ["cccccc"], ["d"]]
