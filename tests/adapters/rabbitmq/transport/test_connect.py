"""Private names of pika: all are listed, and the installed release has them."""

import ast
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from pika import ConnectionParameters, SelectConnection
from pika.adapters.utils import io_services_utils
from pika.adapters.utils.connection_workflow import AMQPConnectionWorkflow, AMQPConnector
from pika.adapters.utils.selector_ioloop_adapter import SelectorIOServicesAdapter
from pika.channel import Channel

from mindtrace.jobs.adapters.rabbitmq.transport import pika_private
from mindtrace.jobs.adapters.rabbitmq.transport.pika_io_loop import PikaIOLoop

TRANSPORT = Path(pika_private.__file__).parent
TRANSPORT_CLASS = "_AsyncPlaintextTransport"
PRIVATE_NAMES = {
    "io_services_utils": (TRANSPORT_CLASS,),
    "AMQPConnectionWorkflow": ("_connector",),
    "AMQPConnector": ("_amqp_conn",),
    "SelectConnection": (
        "_adapter_emit_data",
        "_frame_buffer",
        "_on_data_available",
        "_process_frame",
        "_proto_connection_made",
        "_read_frame",
        "_transport",
        "_trim_frame_buffer",
    ),
    "Channel": ("_cancelled",),
    TRANSPORT_CLASS: (
        "RxEndOfFile",
        "_STATE_ACTIVE",
        "_consume",
        "_on_socket_writable",
        "_sock",
        "_state",
        "_tx_buffers",
    ),
}
"""What the adapter uses of pika beyond its public names, by their owner. ``resolver_loop`` uses ``_loop`` of
pika's resolver besides, and does without where that is missing."""
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
"""Private names of our own class."""


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


def owners() -> Iterator[tuple[str, object]]:
    """Make one of each: most names are attributes that only an instance has. Nothing connects."""
    yield "io_services_utils", io_services_utils
    loop = PikaIOLoop()
    here, there = socket.socketpair()
    try:
        connection = SelectConnection(
            ConnectionParameters(), custom_ioloop=loop, internal_connection_workflow=False
        )
        yield "SelectConnection", connection
        yield "AMQPConnectionWorkflow", AMQPConnectionWorkflow()
        yield "AMQPConnector", AMQPConnector(lambda _server: connection, SelectorIOServicesAdapter(loop))
        yield "Channel", Channel(connection, 1, lambda _channel: None)
        transport = getattr(io_services_utils, TRANSPORT_CLASS, None)
        protocol = SimpleNamespace()
        yield TRANSPORT_CLASS, transport and transport(here, protocol, SelectorIOServicesAdapter(loop))
    finally:
        loop.close()
        here.close()
        there.close()


def test_the_installed_release_has_them() -> None:
    """Else a newer release than those which were tested was allowed."""
    missing = [
        f"{owner}.{name}"
        for owner, thing in owners()
        for name in PRIVATE_NAMES[owner]
        if not hasattr(thing, name)
    ]
    assert missing == []
