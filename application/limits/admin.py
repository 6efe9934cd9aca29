"""What an orchestrator does with limits: show them, and change them while jobs run."""

import logging
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ...domain.bounds import check_int, check_name
from ...domain.errors import LimitNotFound
from ...domain.limits import MAX_COUNT, Limit, Rate
from ...domain.wording import closest
from ...ports import CoordinationStore, OrchestratorBackend
from ...ports.base_classes import Closeable
from ..registration.registry import SchemaRegistry
from .changes import (
    LimitChange,
    LimitIdentity,
    LimitKind,
    all_changes,
    delete_change,
    identity,
    identity_of,
    kind_of,
    write_change,
)
from .declarations import Declaration, read_declarations
from .overview import LimitUse, RateUse, overview

_MAX_BUSIEST = 1000


class LimitAdmin(Closeable):
    """A base of :class:`Orchestrator`: its methods for limits."""

    backend: OrchestratorBackend
    schema_registry: SchemaRegistry
    logger: logging.Logger

    def limits(self, *, busiest: int = 10) -> list[LimitUse | RateUse]:
        """Return the limits and rates of the namespace, by name: what they allow, and what of it is used.

        These are the ones of schemas that are registered here, those whose consumers ran anywhere in the
        last seven days, and those that were changed.

        Args:
            busiest: How many keys to name at most of each limit by a field, 0 to 1,000.

        Raises:
            UnsupportedCapability: the backend has no coordination store.
            InvalidInput: ``busiest`` is out of range.
        """
        check_int("busiest", busiest, 0, _MAX_BUSIEST)
        store = self._limit_store()
        return overview(store, self._declarations(store), all_changes(store), busiest)

    def change_limit(self, name: str, count: int) -> LimitChange:
        """Let ``count`` jobs of a limit run at once, in place of what the code declares.

        Consumers of all processes obey it within about a second, and go on doing so after a restart, until
        :meth:`reset_limit`. A lower limit ends no running job: others start once fewer run than it allows.
        Processes of a release that can't change limits go on with what their code declares.

        Args:
            name: The limit's name; of a limit without a name, that of its queue. If a limit has the name of
                a queue whose limit has none, this is the former: to change the latter, give it a name.
            count: How many run at once, of each key if the limit is by a field; 1 or more.

        Raises:
            LimitNotFound: no limit of this name is declared.
            InvalidInput: ``count`` is out of range.
            UnsupportedCapability: the backend has no coordination store.
        """
        check_int("limit count", count, 1, MAX_COUNT)
        return self._write(self._find(self._limit_store(), name, "limit"), count)

    def change_rate(
        self, name: str, count: int, *, per_s: float | None = None, burst: int | None = None
    ) -> LimitChange:
        """Let ``count`` jobs of a rate start in ``per_s`` seconds, in place of what the code declares.

        It is obeyed as a change of a limit is; see :meth:`change_limit`. Turns of the new rate count by
        themselves: for about a second, while consumers learn of it, jobs of both rates start. A job that has
        a turn of the former rate gets another.

        Args:
            name: The rate's name; of a rate without a name, that of its queue.
            count: How many jobs start in ``per_s`` seconds, 1 or more.
            per_s: How many seconds that is, more than 0. None leaves it as declared.
            burst: How many may start at once, 1 to ``count``. None leaves it as declared, or makes it
                ``count`` if that is less.

        Raises:
            LimitNotFound: no rate of this name is declared.
            InvalidInput: a value is out of range.
            UnsupportedCapability: the backend has no coordination store.
        """
        check_int("rate count", count, 1, MAX_COUNT)
        found = self._find(self._limit_store(), name, "rate")
        declared = found.declared
        if not isinstance(declared, Rate):  # a change of a rate that is declared no more
            raise _not_found(name, "rate", [])
        rate = Rate(
            count,
            per_s=declared.per_s if per_s is None else per_s,
            burst=min(declared.burst, count) if burst is None else burst,
        )
        return self._write(found, rate.count, rate.per_s, rate.burst)

    def reset_limit(self, name: str) -> bool:
        """Let as many jobs of a limit run at once as the code declares; return whether it was changed.

        Raises:
            LimitNotFound: no limit of this name is declared or changed.
            UnsupportedCapability: the backend has no coordination store.
        """
        return self._reset(name, "limit")

    def reset_rate(self, name: str) -> bool:
        """Let jobs of a rate start as fast as the code declares; return whether it was changed.

        Raises:
            LimitNotFound: no rate of this name is declared or changed.
            UnsupportedCapability: the backend has no coordination store.
        """
        return self._reset(name, "rate")

    @abstractmethod
    def _look_anew_at(self, queue: str) -> None:
        """Have the next look at a queue's limits ask the store."""

    def _write(
        self, found: "_Found", count: int, per_s: float | None = None, burst: int | None = None
    ) -> LimitChange:
        change = write_change(self._limit_store(), found.limit, count, per_s, burst)
        self._look_anew_at_all(found.queues)
        return change

    def _reset(self, name: str, kind: LimitKind) -> bool:
        store = self._limit_store()
        found = self._find(store, name, kind)
        was_changed = delete_change(store, found.limit)
        self._look_anew_at_all(found.queues)
        return was_changed

    def _look_anew_at_all(self, queues: Iterable[str]) -> None:
        for queue in queues:
            self._look_anew_at(queue)

    def _find(self, store: CoordinationStore, name: str, kind: LimitKind) -> "_Found":
        """Return the limit of this name, or else that of the queue of this name.

        Raises:
            LimitNotFound: there is none.
        """
        check_name(f"{kind} name", name)
        known: dict[LimitIdentity, _Found] = {}
        for queue, limit in self._declarations(store):
            found = known.setdefault(identity(queue, limit), _Found(identity(queue, limit), [], limit))
            found.queues.append(queue)
        for key in all_changes(store):
            if (changed := identity_of(key)) is not None:
                known.setdefault(changed, _Found(changed, [], None))
        for is_named in (True, False):
            if (found_one := known.get(LimitIdentity(kind, name, is_named))) is not None:
                return found_one
        raise _not_found(name, kind, [each.name for each in known if each.kind == kind])

    def _declarations(self, store: CoordinationStore) -> list[Declaration]:
        """Return what consumers anywhere declare; of queues registered here, what the schema says."""
        found = {(each.queue, kind_of(each.limit)): each for each in read_declarations(store)}
        for queue, schema in self.schema_registry.schemas().items():
            for limit in (schema.concurrency_limit, schema.rate):
                if limit is not None:
                    found[queue, kind_of(limit)] = Declaration(queue, limit)
        return list(found.values())

    def _limit_store(self) -> CoordinationStore:
        self.backend.capabilities.require_coordination("limits need")
        return self.backend.coordination


class _Found(NamedTuple):
    """A limit that is declared or changed."""

    limit: LimitIdentity
    queues: list[str]
    declared: Limit | Rate | None
    """None if it is only changed."""


def _not_found(name: str, kind: LimitKind, known: Sequence[str]) -> LimitNotFound:
    close = closest(name, known)
    meant = "" if close is None else f"did you mean {close!r}? "
    names = ", ".join(map(repr, sorted(known))) or "none"
    return LimitNotFound(
        f"{kind} {name!r}: not declared; {meant}declared: {names}. A limit is known once a consumer of its "
        "queue has run, or its schema is registered"
    )
