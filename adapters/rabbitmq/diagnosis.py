"""Whether a RabbitMQ that can be reached takes, keeps and hands out a message of ours."""

import secrets
from collections.abc import Iterator
from functools import partial

from pika.channel import Channel

from ...domain.errors import BackendUnavailable, JobsError
from ...ports import Finding
from ...ports.findings import doubtful, good, wrong
from .frames import Properties
from .link import Link
from .publisher import Fate, Post, Publisher
from .topology import Names
from .wire import Answer, LineBroken


def diagnose(link: Link, namespace: str, *, exposed: bool) -> Iterator[Finding]:
    """Send a message through a queue that lives and dies with the connection, and look how it fares.

    Args:
        link: The way to the server.
        namespace: Whose names to use: permissions may be for these alone.
        exposed: Whether the connection leaves the machine unencrypted.
    """
    probe = Publisher(link.heart, link.servers)
    queue = Names(namespace, f"doctor-{secrets.token_hex(4)}").reading
    try:
        link.persist(partial(probe.ask, partial(_declare, queue)))
        yield good("server", probe.server or "the server doesn't say what it is")
        yield _publishing(link, probe, queue)
    except BackendUnavailable as error:
        yield wrong("server", str(error), "start the broker, or correct the host and port")
    except JobsError as error:
        yield wrong("permissions", str(error), "grant what docs/rabbitmq.md lists under Privileges")
    finally:
        probe.close()
    if exposed:
        yield doubtful(
            "encryption",
            "passwords and jobs cross the network as plain text",
            "use ssl=True or an amqps:// URL",
        )


def _publishing(link: Link, probe: Publisher, queue: str) -> Finding:
    post = Post("", queue, Properties(message_id="doctor"), b"")
    try:
        (fate,) = probe.send([post], link.patience_s)
        what = f"a message was {fate.name.lower()}"
        if fate is Fate.CONFIRMED:
            probe.ask(partial(_take, queue), link.patience_s)
            return good("publishing", "a message was confirmed, and came back")
    except LineBroken as broken:
        link.refuse(broken)
        what = f"the connection broke: {broken}"
    # The first message that a connection sends may be taken still; nothing else of it is heard then.
    if reason := probe.last_blocked:
        return wrong(
            "publishing",
            f"RabbitMQ takes no messages: {reason}",
            "give it memory or disk space, or let consumers catch up",
        )
    return wrong("publishing", what, "look into the log of RabbitMQ")


def _declare(queue: str, channel: Channel, answer: Answer) -> None:
    channel.queue_declare(queue, exclusive=True, auto_delete=True, callback=answer)


def _take(queue: str, channel: Channel, answer: Answer) -> None:
    channel.basic_get(queue, lambda *_: answer(None), auto_ack=True)
