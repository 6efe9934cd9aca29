"""Jobs as earlier releases wrote them, which later ones must be able to read."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any

from ..domain import JobSchema, job_from_schema
from ..domain.envelope import decode, encode
from ..domain.errors import JobsError
from ..domain.job import Job
from ..domain.model_types import InT

_MADE = datetime(2025, 1, 1, tzinfo=UTC)


def save_snapshot(
    schema: JobSchema[InT, Any], payload: InT | Mapping[str, Any], folder: str | PathLike[str]
) -> Path:
    """Write a job as it is written today to a file of ``folder``, and return the path.

    Commit the file. Call this again when the input model has changed. A job that is there already isn't
    written again, and no file is ever changed.

    Args:
        schema: The schema of the job.
        payload: Its payload; give as many fields a value as you can.
        folder: Where the files are; made if necessary.

    Raises:
        InvalidPayload: the payload doesn't fit the schema.
    """
    validated = job_from_schema(schema, payload).payload
    job = Job(schema_name=schema.name, payload=validated, id=f"{schema.name}-snapshot", created_at=_MADE)
    body = encode(job, schema) + b"\n"
    into = Path(folder)
    into.mkdir(parents=True, exist_ok=True)
    for number in range(1, 1_000_000):
        path = into / f"{schema.name}-{number}.json"
        if not path.exists():
            path.write_bytes(body)
            return path
        if path.read_bytes() == body:
            return path
    raise AssertionError(f"{into} has a million snapshots of {schema.name}")


def assert_readable(schema: JobSchema[Any, Any], folder: str | PathLike[str]) -> list[Job[Any]]:
    """Assert that consumers of ``schema`` can read all snapshots in ``folder``, and return the jobs.

    Args:
        schema: The schema as it is now.
        folder: Where :func:`save_snapshot` wrote; files of other schemas are passed over.

    Raises:
        AssertionError: there is none, or some can't be read; the message says which and why.
    """
    __tracebackhide__ = True
    of_schema = re.compile(re.escape(schema.name) + r"-[0-9]+\.json")
    paths = sorted(path for path in Path(folder).glob("*.json") if of_schema.fullmatch(path.name))
    if not paths:
        raise AssertionError(
            f"{folder} has no snapshot of {schema.name}: write one with "
            "save_snapshot(schema, payload, folder), and commit it"
        )
    jobs, problems = [], []
    for path in paths:
        try:
            jobs.append(decode(path.read_bytes(), schema))
        except JobsError as error:
            problems.append(f"\n  {path.name}: {error}")
    if problems:
        raise AssertionError(
            f"jobs of {schema.name} that are in queues can't be read any more:{''.join(problems)}"
        )
    return jobs
