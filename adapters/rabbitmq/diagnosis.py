"""Whether a RabbitMQ that can be reached takes, keeps and hands out a message of ours."""

import secrets
from collections.abc import Iterator
from functools import partial

from pika.channel import Channel

from ...domain.errors import BackendUnavailable, JobsError
from ...ports import Finding, Verdict
from ...ports.findings import doubtful, good, wrong
from .frames import Properties
from .link import Link
from .management import NoAnswer, policies_of, queues_of
from .policies import SUBJECT, harms_of
from .policy_probe import PolicyProbe
from .publisher import Fate, Post, Publisher
from .topology import Names, namespace_prefix
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
        publishing = _publishing(link, probe, queue)
        yield publishing
        if publishing.verdict is Verdict.GOOD:
            yield from _policies(link, probe, namespace)
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
        (fate,) = probe.send([post], link.retry_timeout_s)
        what = f"a message was {fate.name.lower()}"
        if fate is Fate.CONFIRMED:
            probe.ask(partial(_take, queue), link.retry_timeout_s)
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


def _policies(link: Link, probe: Publisher, namespace: str) -> list[Finding]:
    """What policies do to the queues of a namespace: by the management plugin, or else as far as it shows."""
    for server in link.servers:
        try:
            policies = policies_of(server)
            queues = queues_of(server, namespace_prefix(namespace))
        except NoAnswer:
            continue
        return harms_of(policies, queues, namespace) or [
            good(SUBJECT, f"none of {len(policies)} removes or refuses jobs")
        ]
    try:
        return PolicyProbe(link, probe, namespace).findings() or [
            good(SUBJECT, "none showed; for long times and large numbers see rabbitmqctl list_policies")
        ]
    except (LineBroken, JobsError) as error:
        return [
            doubtful(
                SUBJECT,
                f"couldn't be looked for: {error}",
                "see rabbitmqctl list_policies and list_operator_policies",
            )
        ]


def _declare(queue: str, channel: Channel, answer: Answer) -> None:
    channel.queue_declare(queue, exclusive=True, auto_delete=True, callback=answer)


def _take(queue: str, channel: Channel, answer: Answer) -> None:
    channel.basic_get(queue, lambda *_: answer(None), auto_ack=True)
