"""Ports for private servers."""

from pathlib import Path
from typing import Any

import pytest

from brokers import private_server
from brokers.private_server import NoServer, free_port


def test_no_port_is_given_to_two_before_a_server_can_listen_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not to another process: what was given stands in files."""
    monkeypatch.setattr(private_server.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(private_server, "_PORTS", range(20_000, 20_200))
    given = [free_port() for _ in range(100)]
    assert len(set(given)) == 100
    monkeypatch.setattr(private_server, "_PORTS", given)
    with pytest.raises(NoServer):
        free_port()

    later: Any = private_server.time.time() + private_server._RESERVED_S + 1.0
    monkeypatch.setattr(private_server.time, "time", lambda: later)
    assert free_port() in given
