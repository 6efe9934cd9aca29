"""Have calls to PostgreSQL fail soon, however slow the machine is."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from types import SimpleNamespace

import pytest

from conditions import LIMIT_S
from mindtrace.jobs import PostgreSQLClient
from mindtrace.jobs.adapters.postgresql import session


@contextmanager
def three_tries() -> Iterator[None]:
    """Have calls give up after three tries, for what the server answers with an error each time.

    Each try may take as long as the retry timeout: a short one would cut a slow answer short, and be told as
    a server that hangs.
    """
    with pytest.MonkeyPatch.context() as patch:
        delays = SimpleNamespace(delay_s=lambda tries: 0.02 if tries < 3 else inf)
        patch.setattr(session, "_BACKOFF", delays)
        yield


@contextmanager
def connected(client: PostgreSQLClient, *, retry_timeout_s: float) -> Iterator[None]:
    """Have a call give up after so long, for what the server doesn't answer.

    The client has a connection then: to make one within that time, the machine would have to be quick.
    """
    client._session.retry_timeout_s = LIMIT_S
    client.queues()
    client._session.retry_timeout_s = retry_timeout_s
    yield
    client._session.retry_timeout_s = LIMIT_S
