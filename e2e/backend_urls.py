"""Where a test that runs on every backend has a namespace of its own."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from psycopg import sql

from conditions import LIMIT_S

PATIENCE = f"retry_timeout_s={LIMIT_S:g}"
"""What a URL has for its client to wait for a busy machine."""


@contextmanager
def own_url(backend: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """Yield the URL of a new namespace on a backend with a coordination store; PostgreSQL's is dropped after.

    On the others, delete the queues.
    """
    namespace = f"e2e-{uuid.uuid4().hex[:12]}"
    if backend == "memory":
        yield f"memory://{namespace}"
    elif backend == "sqlite":
        yield f"sqlite:///{folder}/jobs.db?namespace={namespace}&{PATIENCE}"
    elif backend == "postgresql":
        address: Any = request.getfixturevalue("postgresql_address")
        yield f"{address.url(namespace)}&{PATIENCE}"
        with address.connect(autocommit=True) as admin:
            admin.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(namespace)))
    else:
        url = f"{request.getfixturevalue(f'{backend}_address').url}?namespace={namespace}&{PATIENCE}"
        if backend == "rabbitmq":
            store = f"{request.getfixturevalue('redis_address').url}?{PATIENCE}"
            url += f"&store={quote(store, safe='')}"
        yield url
