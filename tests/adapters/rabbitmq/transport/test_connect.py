"""Private names of pika: all are listed, looked for at import, and done without where one is missing."""

import ast
import logging
from pathlib import Path

import pytest
from pika.adapters.utils import io_services_utils
from pika.channel import Channel

from mindtrace.jobs.adapters.rabbitmq.transport import connect, pika_private
from mindtrace.jobs.adapters.rabbitmq.transport.pika_private import PRIVATE_NAMES, PrivateConnection
from mindtrace.jobs.adapters.rabbitmq.transport.pika_public import PublicConnection

TRANSPORT = Path(pika_private.__file__).parent
LISTED = {name for names in PRIVATE_NAMES.values() for name in names}
OURS = {
    "_callbacks",
    "_confirm_callbacks",
    "_leave_to_pika",
    "_outgoing",
    "_read_confirms",
    "_read_deliveries",
    "_read_once",
    "_write",
}
"""Private names of :class:`PrivateConnection` itself."""


def private_names(path: Path) -> set[str]:
    """The private attributes that a module uses."""
    tree = ast.parse(path.read_text("utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return {name for name in used if name.startswith("_") and not name.startswith("__")}


def test_every_private_name_is_listed() -> None:
    used = private_names(TRANSPORT / "pika_private.py") - OURS
    assert used == {name for name in LISTED if name.startswith("_")}


def test_no_other_module_uses_one() -> None:
    for path in TRANSPORT.parent.rglob("*.py"):
        assert path.name == "pika_private.py" or not private_names(path) & LISTED, path


def test_the_installed_release_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(connect.FORCE_PUBLIC, raising=False)
    assert pika_private.missing_names() == []
    assert connect.chosen_driver() is PrivateConnection


def test_without_one_the_public_names_serve(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(connect.FORCE_PUBLIC, raising=False)
    monkeypatch.delattr(io_services_utils, "_AsyncPlaintextTransport")
    with caplog.at_level(logging.WARNING):
        assert connect.chosen_driver() is PublicConnection
    assert "it lacks io_services_utils._AsyncPlaintextTransport" in caplog.text


def test_a_name_that_only_an_instance_has_is_missed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    init = Channel.__init__

    def without(self: Channel, *args: object) -> None:
        init(self, *args)
        del self._cancelled

    monkeypatch.setattr(Channel, "__init__", without)
    assert pika_private.missing_names() == ["Channel._cancelled"]


def test_the_public_names_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(connect.FORCE_PUBLIC, "1")
    assert connect.chosen_driver() is PublicConnection
