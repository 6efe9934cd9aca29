"""Find policies that remove or refuse jobs, by what they do to messages in queues made for the purpose.

For users whom the management plugin doesn't tell. Only what takes effect at once is found: short times, small
numbers.
"""

import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pika.channel import Channel
from pika.spec import Basic

from ....domain.errors import JobsError
from ....ports import Finding
from ..topology import ENDLESS, REFUSE_WHEN_FULL, Arguments, Names, namespace_prefix
from ..transport.broker import Broker
from ..transport.errors import ConnectionBroken, Missing
from ..transport.frames import Properties
from ..transport.publishing import Outgoing, PublishConnection, SendState
from ..transport.queue_requests import QueueState, request_queue_state
from ..transport.request import Action, Reply
from .policies import HARMS, SUBJECT

MESSAGES = 200
"""How many messages each queue gets, so that a smaller max-length shows."""
LARGEST = 256 * 1024
"""The size of one more, in bytes, so that a smaller max-length-bytes shows."""
RETURNS = 25
"""How often a message is given back, so that a smaller delivery-limit shows."""
WAIT_S = 1.5
"""How long messages and queues are left alone, so that a shorter message-ttl or expires shows."""
_LEFT_OVER_MS = 60_000
"""After how long the broker removes the queues of a doctor that was killed."""


@dataclass
class _Probe:
    """A queue that policies apply to as to one of ours, and what the broker did to its messages."""

    name: str
    type: str
    kept: int = 0
    """How many of the messages were in it once all were sent, the large one apart."""
    refused_any: bool = False
    refused_large: bool = False
    returns: int = 0
    reasons: set[str] = field(default_factory=set)
    """Why messages were removed, in the broker's words."""
    is_gone: bool = False

    def found(self) -> dict[str, str]:
        """What policies say that apply to it, as far as it shows, by their keys."""
        found = {}
        if "expired" in self.reasons:
            found["message-ttl"] = f"of {WAIT_S:g} s or less"
        if self.refused_any or ("maxlen" in self.reasons and self.kept < MESSAGES):
            found["max-length"] = f"of {self.kept} or less"
        elif self.refused_large or "maxlen" in self.reasons:
            found["max-length-bytes"] = f"of {LARGEST:,} or less"
        if "maxlen" in self.reasons:
            found["overflow"] = "drop-head"
        if "delivery_limit" in self.reasons:
            found["delivery-limit"] = f"of {RETURNS} or less"
        if self.is_gone:
            found["expires"] = f"of {WAIT_S:g} s or less"
        return found


class PolicyProbe:
    """Tries queues of each type that a job queue has.

    Args:
        broker: The way to the server.
        connection: The connection to use.
        namespace: Whose names to use.
    """

    def __init__(self, broker: Broker, connection: PublishConnection, namespace: str) -> None:
        self._broker = broker
        self._connection = connection
        self._namespace = namespace
        names = Names(namespace, f"doctor-{secrets.token_hex(4)}")
        self._removed_to = names.reading
        probes = [
            _Probe(names.work, "quorum"),
            _Probe(names.dead, "quorum"),
            _Probe(f"{names.work}-priority", "classic"),
        ]
        self._probes = {probe.name: probe for probe in probes}

    def findings(self) -> list[Finding]:
        """Try the queues, and return what policies do to them.

        Raises:
            ConnectionBroken: the connection broke.
            BackendError: the broker refuses.
        """
        probes = list(self._probes.values())
        try:
            self._request(self._declare)
            self._try_each(self._fill)
            self._try_each(self._give_back)
            self._connection.loop.wait(lambda: all("expired" in probe.reasons for probe in probes), WAIT_S)
            self._try_each(self._count)
        finally:
            with suppress(ConnectionBroken, JobsError):
                self._request(self._delete)
        found = {key: value for probe in probes for key, value in probe.found().items()}
        remedy = (
            "find it with rabbitmqctl list_policies and list_operator_policies, and give it a pattern that "
            f"leaves out the names that begin with {namespace_prefix(self._namespace)}"
        )
        return [
            Finding(HARMS[key].verdict, SUBJECT, f"a policy sets {HARMS[key].described(key, value)}", remedy)
            for key, value in found.items()
        ]

    def _declare(self, channel: Channel, reply: Reply) -> None:
        channel.queue_declare(self._removed_to, exclusive=True, auto_delete=True)
        for probe in self._probes.values():
            channel.queue_declare(probe.name, durable=True, arguments=self._arguments(probe))
        channel.basic_consume(self._removed_to, self._on_removed, auto_ack=True, callback=reply)

    def _arguments(self, probe: _Probe) -> Arguments:
        arguments = REFUSE_WHEN_FULL | {
            "x-queue-type": probe.type,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self._removed_to,
            "x-expires": _LEFT_OVER_MS,
        }
        return arguments | ({"x-delivery-limit": ENDLESS} if probe.type == "quorum" else {})

    def _on_removed(
        self, _channel: Channel, _method: Basic.Deliver, properties: Properties, _: bytes
    ) -> None:
        headers = properties.headers or {}
        probe = self._probes.get(headers.get("x-last-death-queue", ""))
        if probe is not None:
            probe.reasons.add(headers.get("x-last-death-reason", ""))

    def _try_each(self, step: Callable[[_Probe], object]) -> None:
        for probe in self._probes.values():
            try:
                step(probe)
            except Missing:
                probe.is_gone = True

    def _fill(self, probe: _Probe) -> None:
        """Send messages without a body, which only a max-length counts, then a large one."""
        for _ in range(2):  # of the first messages that are too many, a quorum queue takes some
            probe.refused_any |= self._refuses(probe, [b""] * (MESSAGES // 2))
        probe.kept = self._count(probe)
        probe.refused_large = self._refuses(probe, [bytes(LARGEST)])

    def _refuses(self, probe: _Probe, bodies: list[bytes]) -> bool:
        """Send messages, and return whether one was refused."""
        messages = [Outgoing(probe.name, Properties("doctor"), body) for body in bodies]
        self._connection.send(messages, self._broker.retry_timeout_s)
        return any(message.state is SendState.REFUSED for message in messages)

    def _give_back(self, probe: _Probe) -> None:
        """Receive a message and give it back, again and again."""
        if probe.type != "quorum":  # others count no deliveries
            return
        tag = f"doctor-{probe.name}"

        def consume(channel: Channel, reply: Reply) -> None:
            channel.basic_qos(prefetch_count=1, callback=lambda _: None)
            channel.basic_consume(probe.name, give_back, consumer_tag=tag, callback=reply)

        def give_back(channel: Channel, method: Basic.Deliver, _properties: Properties, _body: bytes) -> None:
            probe.returns += 1
            if probe.returns <= RETURNS:
                channel.basic_nack(method.delivery_tag, requeue=True)

        def over() -> bool:  # no message comes that expires at once
            return probe.returns > RETURNS or not probe.reasons.isdisjoint(("delivery_limit", "expired"))

        self._refuses(probe, [b""])  # the queue may be empty by now
        self._request(consume)
        self._connection.loop.wait(over, self._broker.retry_timeout_s)
        self._request(lambda channel, reply: channel.basic_cancel(tag, callback=reply))

    def _count(self, probe: _Probe) -> int:
        """How many messages are in a queue; raises Missing if it is gone."""
        state: QueueState = self._request(partial(request_queue_state, probe.name))
        return state.ready

    def _delete(self, channel: Channel, reply: Reply) -> None:
        for name in self._probes:
            channel.queue_delete(name)
        channel.queue_delete(self._removed_to, callback=reply)

    def _request(self, action: Action) -> Any:
        try:
            return self._connection.request(action, self._broker.retry_timeout_s)
        except ConnectionBroken as broken:
            self._broker.raise_refusal(broken)
            raise
