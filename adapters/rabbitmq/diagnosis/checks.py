"""Whether a RabbitMQ that can be reached takes, keeps and hands out a message of ours."""

import secrets
from collections.abc import Iterator
from functools import partial

from pika.channel import Channel

from ....domain.errors import BackendUnavailable, JobsError
from ....ports import Finding, Verdict
from ....ports.findings import doubtful, good, wrong
from ..topology import Names, namespace_prefix
from ..transport.broker import Broker
from ..transport.errors import ConnectionBroken
from ..transport.frames import Properties
from ..transport.publishing import Outgoing, PublishConnection, SendState
from ..transport.queue_requests import declare_exclusive
from ..transport.request import Reply
from .management import NoAnswer, policies_of, queues_of
from .policies import SUBJECT, harms_of
from .policy_probe import PolicyProbe


def diagnose(broker: Broker, namespace: str, *, exposed: bool) -> Iterator[Finding]:
    """Send a message through a queue that lives and dies with the connection, and look how it fares.

    Args:
        broker: The way to the server.
        namespace: Whose names to use: permissions may be for these alone.
        exposed: Whether the connection leaves the machine unencrypted.
    """
    probe = PublishConnection(broker)
    queue = Names(namespace, f"doctor-{secrets.token_hex(4)}").reading
    try:
        broker.retry(partial(probe.request, partial(declare_exclusive, queue)))
        yield good("server", probe.server or "the server doesn't say what it is")
        publishing = _publishing(broker, probe, queue)
        yield publishing
        if publishing.verdict is Verdict.GOOD:
            yield from _policies(broker, probe, namespace)
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


def _publishing(broker: Broker, probe: PublishConnection, queue: str) -> Finding:
    message = Outgoing(queue, Properties(message_id="doctor"), b"")
    try:
        probe.send([message], broker.retry_timeout_s)
        what = f"a message was {message.state.name.lower()}"
        if message.state is SendState.CONFIRMED:
            probe.request(partial(_take, queue), broker.retry_timeout_s)
            return good("publishing", "a message was confirmed, and came back")
    except ConnectionBroken as broken:
        broker.raise_refusal(broken)
        what = f"the connection broke: {broken}"
    # The first message that a connection sends may be taken still; nothing else of it is heard then.
    if reason := probe.last_blocked:
        return wrong(
            "publishing",
            f"RabbitMQ takes no messages: {reason}",
            "give it memory or disk space, or let consumers catch up",
        )
    return wrong("publishing", what, "look into the log of RabbitMQ")


def _policies(broker: Broker, probe: PublishConnection, namespace: str) -> list[Finding]:
    """What policies do to the queues of a namespace: by the management plugin, or else as far as it shows."""
    for server in broker.servers:
        try:
            policies = policies_of(server)
            queues = queues_of(server, namespace_prefix(namespace))
        except NoAnswer:
            continue
        return harms_of(policies, queues, namespace) or [
            good(SUBJECT, f"none of {len(policies)} removes or refuses jobs")
        ]
    try:
        return PolicyProbe(broker, probe, namespace).findings() or [
            good(SUBJECT, "none showed; for long times and large numbers see rabbitmqctl list_policies")
        ]
    except (ConnectionBroken, JobsError) as error:
        return [
            doubtful(
                SUBJECT,
                f"couldn't be looked for: {error}",
                "see rabbitmqctl list_policies and list_operator_policies",
            )
        ]


def _take(queue: str, channel: Channel, reply: Reply) -> None:
    channel.basic_get(queue, lambda *_: reply(None), auto_ack=True)
