"""Which schema travels in which queue."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from ...domain import AnyJSON, Job, JobSchema, Queue, QueueKind, read_schema
from ...domain.bounds import check_name
from ...domain.errors import (
    BackendUnavailable,
    InvalidName,
    QueueConflict,
    QueueNotFound,
    SchemaConflict,
    SchemaNotRegistered,
    UnsupportedCapability,
)
from ...domain.limits import contradiction
from ...domain.model_changes import changes
from ...domain.wording import closest
from ...ports import OrchestratorBackend
from .connected_consumers import ConnectedConsumers

QueueRef = str | JobSchema[Any, Any]
"""A queue, by its name or by the schema of its jobs."""


class Registration(NamedTuple):
    """A schema and the queue that carries it."""

    schema: JobSchema[Any, Any]
    queue: Queue


_known: dict[str, Registration] = {}
_SHOWN = 5


class UnknownModel(AnyJSON):
    """The model of a queue whose schema isn't known here: another may take its place."""


class SchemaRegistry:
    """The schemas of one orchestrator, by the name of their queue, which is declared with them.

    What was registered anywhere in this process is remembered besides, so that a consumer can be connected
    to a second orchestrator without registering its schema again. A schema is a definition, like a class;
    no broker and no job is shared this way.

    Args:
        backend: Where the queues are.
    """

    def __init__(self, backend: OrchestratorBackend) -> None:
        self._backend = backend
        self.consumers = ConnectedConsumers()
        self._changing = threading.Lock()
        self._registrations: Mapping[str, Registration] = {}
        """By queue. Each change puts another mapping here, so that any thread may iterate over this one."""
        self._undeclared: dict[str, tuple[JobSchema[Any, Any], QueueKind | None]] = {}
        """The schemas and kinds of queues that couldn't be declared, as the broker was away."""
        self._deleted: set[str] = set()
        """The names of queues that were deleted here, and that only :meth:`register` declares again."""

    def register(self, schema: JobSchema[Any, Any], name: str, kind: QueueKind | None) -> Registration:
        """Declare a queue, and remember that it carries jobs of ``schema``.

        If the broker is away, this is tried again when the queue is next used.

        Args:
            schema: The schema.
            name: The queue's name.
            kind: The queue's kind; None is the schema's, or else that of the queue, if it is declared.

        Raises:
            SchemaConflict: the queue carries jobs of other models, or another queue has a limit of the same
                name that allows something else.
            JobsError: as of :meth:`OrchestratorBackend.declare`.
        """
        self._check(schema, name)
        return self._declare(schema, name, kind or schema.queue_type or self._kind_of(name))

    def attach(self, queue: str | Queue) -> None:
        """Remember a declared queue whose schema isn't known, but for no other orchestrator.

        Raises:
            QueueNotFound: the queue isn't declared.
        """
        name = queue.name if isinstance(queue, Queue) else check_name("queue name", queue)
        self._backend.counts(name)
        if name not in self._registrations:
            found = queue if isinstance(queue, Queue) else self._found(name)
            self._add(Registration(JobSchema(name, UnknownModel, UnknownModel), found))

    def registered(self, queue: object) -> Registration:
        """Return what was registered for a queue, given by its name or its schema.

        A schema that wasn't registered is registered now, as it says all that is needed: but not where its
        queue was deleted, or where it was registered for another queue, which was probably meant.

        Raises:
            QueueNotFound: nothing was registered under this name.
            SchemaConflict: the queue carries jobs of other models.
            InvalidInput: ``queue`` is neither a name nor a schema.
        """
        if isinstance(queue, str) and (registration := self._registrations.get(queue)) is not None:
            return registration
        name = queue_name_of(queue)
        registration = self._registrations.get(name)
        if registration is None and (waiting := self._undeclared.get(name)) is not None:
            schema, kind = waiting
            registration = self._declare(schema, name, kind)
        if registration is None and not isinstance(queue, str) and self._stands_for_itself(name):
            registration = self.register(read_schema(queue, "queue"), name, None)
        if registration is None:
            raise QueueNotFound(
                f"queue {name!r}: register its schema with this orchestrator first; {self._resembling(name)}"
            )
        if isinstance(queue, JobSchema) and queue is not registration.schema:
            self._check(queue, name)
            registration = Registration(queue, registration.queue)
        return registration

    def schemas(self) -> dict[str, JobSchema[Any, Any]]:
        """Return the schemas that are registered here, by queue."""
        return {queue: schema for queue, (schema, _) in self._registrations.items()}

    def for_reading(self, queue: object) -> Registration:
        """Return what was registered for a queue, to ask about its jobs; a schema needs no registration.

        Nothing is declared for such a schema: the backend says whether the queue is there.

        Raises:
            QueueNotFound: nothing was registered under this name, and ``queue`` is no schema.
            SchemaConflict: the queue is registered here, with other models.
            InvalidInput: ``queue`` is neither a name nor a schema.
        """
        if not isinstance(queue, str) and hasattr(queue, "input_schema"):
            schema = read_schema(queue, "queue")
            if schema.name not in self._registrations and schema.name not in self._undeclared:
                return Registration(schema, Queue(schema.name))
        return self.registered(queue)

    def must_declare(self, queue: QueueRef) -> bool:
        """Whether :meth:`registered` would declare the queue first."""
        if isinstance(queue, str):  # which was registered, or the broker was away then
            return bool(self._undeclared) and queue not in self._registrations
        return queue_name_of(queue) not in self._registrations

    def for_consumer(self, queue: str) -> Registration:
        """Return what was registered for ``queue`` here or else in this process; declare it if necessary.

        Raises:
            SchemaNotRegistered: no schema of this name is registered in this process (SEC-1).
        """
        registration = self._registrations.get(queue)
        if registration is None:
            registration = _known.get(queue)
            if registration is None:
                raise SchemaNotRegistered(
                    f"no schema {queue!r} is registered: call orchestrator.register(schema) before "
                    f"connecting a consumer to it, or give its class a schema; {self._resembling(queue)}"
                )
            registration = self._declare(registration.schema, queue, registration.queue.kind)
        return registration

    def _kind_of(self, queue: str) -> QueueKind | None:
        """Return the kind of a queue that is registered here."""
        registration = self._registrations.get(queue)
        return None if registration is None else registration.queue.kind

    def drop(self, queue: str) -> None:
        """Forget ``queue`` here, as it was deleted."""
        self._deleted.add(queue)
        with self._changing:
            others = dict(self._registrations)
            others.pop(queue, None)
            self._registrations = others
        self._undeclared.pop(queue, None)

    def _check(self, schema: JobSchema[Any, Any], name: str) -> None:
        """Refuse a second schema for one queue, unless its models are those of the first, defined again."""
        present = self._registrations.get(name)
        if present is None or UnknownModel in (present.schema.input, schema.input):
            return
        before, after = _models(present.schema), _models(schema)
        if before == after:
            return
        differences = [
            difference for models in zip(before, after, strict=True) for difference in changes(*models)
        ]
        if differences:
            raise SchemaConflict(_conflict(name, before, after, differences))

    def _check_named_limits(self, schema: JobSchema[Any, Any], name: str) -> None:
        """Refuse a limit that has the name of another queue's and allows something else."""
        for queue, (other, _) in self._registrations.items():
            differs = contradiction(schema.rate, other.rate) or contradiction(
                schema.concurrency_limit, other.concurrency_limit
            )
            if queue != name and differs:
                raise SchemaConflict(
                    f"queue {name!r}: {differs} in queue {queue!r}; limits of one name must allow the same: "
                    "define it once, and use it in both schemas"
                )

    def _declare(self, schema: JobSchema[Any, Any], name: str, kind: QueueKind | None) -> Registration:
        if schema.is_limited:
            self._backend.capabilities.require_coordination("limits need")
            self._check_named_limits(schema, name)
        if schema.dead_ttl_s is not None:
            self._backend.capabilities.require_dead_ttl()
        try:
            registration = Registration(schema, self._declared(name, kind))
        except BackendUnavailable:
            self._undeclared[name] = (schema, kind)
            raise
        self._add(registration)
        _known[name] = registration
        return registration

    def _declared(self, name: str, kind: QueueKind | None) -> Queue:
        """Declare a queue of this kind; where nobody said one, of the kind that it has."""
        queue = Queue(name, kind or QueueKind.FIFO)
        try:
            self._backend.declare(queue)
        except QueueConflict as error:
            if kind is not None or error.found not in list(QueueKind):
                raise
            queue = Queue(name, QueueKind(error.found))
            self._backend.declare(queue)
        return queue

    def _stands_for_itself(self, schema: str) -> bool:
        return schema not in self._deleted and all(
            registered.schema.name != schema for registered in self._registrations.values()
        )

    def _add(self, registration: Registration) -> None:
        name = registration.queue.name
        self._deleted.discard(name)
        self._undeclared.pop(name, None)
        with self._changing:
            self._registrations = {**self._registrations, name: registration}

    def _found(self, queue: str) -> Queue:
        """Ask the backend for the kind of a queue."""
        try:
            queues = self._backend.queues()
        except UnsupportedCapability:  # then only a job with a priority is refused that might have passed
            queues = []
        return next((found for found in queues if found.name == queue), Queue(queue))

    def _resembling(self, queue: str) -> str:
        """Name the queue that was probably meant, and all that are registered."""
        close = closest(queue, self._registrations)
        names = ", ".join(map(repr, sorted(self._registrations))) or "none"
        return f"registered: {names}" if close is None else f"did you mean {close!r}? registered: {names}"


def queue_name_of(queue: object) -> str:
    """Return the name of a queue, given by its name or its schema.

    Raises:
        InvalidInput: it is neither.
    """
    if not isinstance(queue, str) and hasattr(queue, "input_schema"):
        queue = read_schema(queue, "queue").name
    if isinstance(queue, Mapping | BaseModel | Job):
        raise InvalidName(f"queue name {queue!r:.80}: pass the queue first, and then the job")
    if isinstance(queue, Iterator) or (isinstance(queue, Sequence) and not isinstance(queue, str | bytes)):
        raise InvalidName(f"queue name {queue!r:.80}: pass one queue first, and then the jobs")
    return check_name("queue name", queue)


def _models(schema: JobSchema[Any, Any]) -> tuple[type[BaseModel], type[BaseModel]]:
    return schema.input, schema.output


def _conflict(queue: str, before: Sequence[type], after: Sequence[type], differences: Sequence[str]) -> str:
    were, are = (" -> ".join(model.__name__ for model in models) for models in (before, after))
    if were != are:
        return (
            f"queue {queue!r} carries jobs of {were}, not {are}: give the other schema another name, or "
            "another queue: register(schema, queue=…)"
        )
    shown = "; ".join(differences[:_SHOWN])
    more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
    return (
        f"queue {queue!r} carries jobs of {were} as it was defined before: {shown}{more}. To go on with the "
        "new definition, make a new Orchestrator on the same backend; for other jobs, use another name"
    )
