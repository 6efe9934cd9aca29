"""The keys of the records and marks of unique jobs."""

from typing import Any

from pydantic_core import from_json

from ...domain import JobSchema
from ...domain.unique import digest


def prefix_of(queue: str) -> str:
    """Return what the keys of a queue's records begin with."""
    return f"unique/{queue}/"


def prefix_of_marks(queue: str) -> str:
    """Return what the keys of a queue's marks begin with."""
    return f"replaced/{queue}/"


def key_of(queue: str, schema: JobSchema[Any, Any], body: bytes) -> str:
    """Return the key of a job's record, from its encoded payload."""
    payload = from_json(body, cache_strings="keys")["payload"]
    return f"{prefix_of(queue)}{digest(payload, schema.unique_names)}"


def mark_of(key: str, job_id: str) -> str:
    """Return the key of the mark of a job that was replaced, from the key of its record.

    The value of the mark is the id of the job that took its place.
    """
    return f"replaced/{key.removeprefix('unique/')}/{job_id}"
