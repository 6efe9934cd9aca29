"""A queue: its name and the order in which it serves jobs."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

from .bounds import check_name
from .errors import InvalidInput


class QueueKind(StrEnum):
    """The order in which a queue serves jobs: oldest first, newest first, or by priority (ORD-1 to ORD-3)."""

    FIFO = "fifo"
    STACK = "stack"
    PRIORITY = "priority"

    @classmethod
    def parse(cls, value: "QueueKind | str", owner: str = "") -> "QueueKind":
        """Return the kind that ``value`` names.

        Args:
            value: The name, or the kind.
            owner: What has the queue; it opens the error's message.

        Raises:
            InvalidInput: no kind has that name.
        """
        try:
            return cls(value)
        except ValueError:
            kinds = ", ".join(cls)
            raise InvalidInput(f"{owner}queue type {value!r}: must be one of {kinds}") from None


QueueType: TypeAlias = QueueKind | Literal["fifo", "stack", "priority"]
"""The kind of a queue as callers give it, itself or by its name."""


@dataclass(frozen=True, slots=True)
class Queue:
    """The name and kind of a queue.

    Raises:
        InvalidName: the name isn't 1 to 128 characters of ``A-Z a-z 0-9 . _ -``.
        InvalidInput: the kind is none of ``fifo``, ``stack``, ``priority``.
    """

    name: str
    kind: QueueKind = QueueKind.FIFO

    def __post_init__(self) -> None:
        check_name("queue name", self.name)
        object.__setattr__(self, "kind", QueueKind.parse(self.kind))
