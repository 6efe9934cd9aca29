"""The pytest plugin of the suite."""

from dataclasses import dataclass

import pytest

from mindtrace.jobs.contract.plugin import _long_first


@dataclass(frozen=True, slots=True)
class Item:
    """A test, as far as the order depends on it."""

    name: str

    def get_closest_marker(self, name: str) -> str | None:
        return name if self.name.startswith("long") else None


def in_order(names: str, workers: int) -> list[str]:
    items = [Item(name) for name in names.split()]
    return [item.name for item in _long_first(items, workers)]  # type: ignore[arg-type,attr-defined]


NAMES = "a long-1 b c d long-2 e f g long-3"


@pytest.mark.parametrize(
    ("names", "workers", "ordered"),
    [
        (NAMES, 1, NAMES),
        ("a b c", 2, "a b c"),
        (NAMES, 2, "long-1 long-3 a b c  long-2 d e f g"),
        (NAMES, 3, "long-1 a b  long-2 c d  long-3 e f g"),
        (NAMES, 4, "long-1 a  long-2 b  long-3 c d  e f g"),
        ("long-1 long-2 long-3 a", 2, "long-1 long-3  long-2 a"),
        ("long-1 long-2 long-3 a", 8, "long-1 long-2 long-3 a"),
    ],
)
def test_each_worker_begins_with_tests_that_take_long(names: str, workers: int, ordered: str) -> None:
    """A worker of pytest-xdist gets as many tests that stand together as are in each part here."""
    assert in_order(names, workers) == ordered.split()
