"""The record of a unique job, and the mark of one that another took the place of."""

from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

REPLACED_BY = b"replaced by "
"""What the stored result of a replaced job begins with, before the id of the newer one. It isn't JSON."""


class Replaced(NamedTuple):
    """A job that another took the place of."""

    job_id: str
    delay_s: float
    """The delay with which it was published."""


class UniqueRecord(NamedTuple):
    """What is known of the job that has a key."""

    job_id: str
    until: float | None = None
    """Until when its period runs, by the store's clock; None without one."""
    delay_s: float = 0.0
    """The delay with which it was published, if its schema replaces jobs."""
    replaced: Replaced | None = None
    """The job whose place it took, as long as that one has no mark."""

    def encode(self) -> bytes:
        """Write the record's value."""
        fields: dict[str, Any] = {"id": self.job_id, "until": self.until}
        if self.delay_s:
            fields["delay_s"] = self.delay_s
        if self.replaced is not None:
            fields["replaced"] = self.replaced
        return to_json(fields)

    @classmethod
    def decode(cls, value: bytes) -> "UniqueRecord":
        """Read what :meth:`encode` wrote."""
        fields = from_json(value)
        replaced = fields.get("replaced")
        return cls(
            fields["id"],
            fields["until"],
            fields.get("delay_s", 0.0),
            None if replaced is None else Replaced(*replaced),
        )
