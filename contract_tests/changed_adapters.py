"""Faults in the text that an adapter sends to its broker: in statements of SQLite, and in scripts of Redis.

A fault here is a text that is replaced by another wherever it occurs.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha1
from typing import Any
from unittest import mock

from mindtrace.jobs.adapters.redis.scripts import Script
from mindtrace.jobs.adapters.redis.transport import RetryingConnection
from mindtrace.jobs.adapters.sqlite.session import Session


@dataclass(frozen=True, slots=True)
class TextFault:
    """One text that is replaced by another."""

    name: str
    sentence: str
    clauses: tuple[str, ...]
    """Those that it breaks: the suite must find one of them broken."""
    old: str
    """What is replaced; of a statement, a pattern of :mod:`re`."""
    new: str


@contextmanager
def changed_statements(fault: TextFault) -> Iterator[list[str]]:
    """Have all connections to files that are opened meanwhile send statements with a fault.

    Yields a list of the statements that were changed.
    """
    changed: list[str] = []

    class ChangedConnection(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            return super().execute(_changed(sql), *parameters)

        def executemany(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            return super().executemany(_changed(sql), *parameters)

    def _changed(sql: str) -> str:
        text, count = re.subn(fault.old, fault.new, sql)
        if count and sql not in changed:
            changed.append(sql)
        return text

    connect, connect_session = sqlite3.connect, Session._connect

    def connected(session: Session) -> sqlite3.Connection:
        with mock.patch("sqlite3.connect", partial(connect, factory=ChangedConnection)):
            return connect_session(session)

    with mock.patch.object(Session, "_connect", connected):
        yield changed


@contextmanager
def unwoken_files() -> Iterator[None]:
    """Have no change to a file wake anybody, so that all wait for their next look."""
    with ExitStack() as stack:
        for module in ("transaction", "client"):
            stack.enter_context(mock.patch(f"mindtrace.jobs.adapters.sqlite.{module}.wake"))
        yield


@contextmanager
def changed_scripts(fault: TextFault) -> Iterator[list[str]]:
    """Have all clients of Redis send scripts with a fault meanwhile; yields the texts that were changed."""
    changed: list[str] = []
    known: dict[str, Script] = {}
    run, wait = RetryingConnection.run, RetryingConnection.wait

    def faulty(script: Script) -> Script:
        if script.sha not in known:
            text = script.text.replace(fault.old, fault.new)
            if text != script.text:
                changed.append(script.text)
            sha = sha1(text.encode(), usedforsecurity=False).hexdigest()
            known[script.sha] = replace(script, text=text, sha=sha)
        return known[script.sha]

    def run_changed(
        connection: RetryingConnection, script: Script, keys: Sequence[str], *arguments: Any, **more: Any
    ) -> Any:
        return run(connection, faulty(script), keys, *arguments, **more)

    def wait_changed(connection: RetryingConnection, streams: Any, seconds: float, then: Any = None) -> Any:
        call = None if then is None else (faulty(then[0]), *then[1:])
        return wait(connection, streams, seconds, call)

    with (
        mock.patch.object(RetryingConnection, "run", run_changed),
        mock.patch.object(RetryingConnection, "wait", wait_changed),
    ):
        yield changed
