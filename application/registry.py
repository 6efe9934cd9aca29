"""Which schema travels in which queue."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from ..domain import AnyJSON, JobSchema, Queue, QueueKind, read_schema
from ..domain.bounds import check_name
from ..domain.errors import (
    BackendUnavailable,
    InvalidName,
    QueueNotFound,
    SchemaConflict,
    SchemaNotRegistered,
    UnsupportedCapability,
)
from ..domain.model_changes import changes
from ..domain.wording import closest
from ..ports import OrchestratorBackend

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
        self._registrations: dict[str, Registration] = {}
        self._undeclared: dict[str, Registration] = {}
        """Those whose queue couldn't be declared, as the broker was away."""

    def register(self, schema: JobSchema[Any, Any], queue: Queue) -> None:
        """Declare ``queue``, and remember that it carries jobs of ``schema``.

        If the broker is away, this is tried again when the queue is next used.

        Raises:
            SchemaConflict: the queue carries jobs of other models.
            JobsError: as of :meth:`OrchestratorBackend.declare`.
        """
        registration = Registration(schema, queue)
        self._check(registration)
        self._declare(registration)

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

        Raises:
            QueueNotFound: nothing was registered under this name.
            SchemaConflict: the queue carries jobs of other models.
            InvalidInput: ``queue`` is neither a name nor a schema.
        """
        if isinstance(queue, str) and (registration := self._registrations.get(queue)) is not None:
            return registration
        name = queue_name_of(queue)
        registration = self._registrations.get(name)
        if registration is None and (registration := self._undeclared.get(name)) is not None:
            self._declare(registration)
        if registration is None:
            raise QueueNotFound(
                f"queue {name!r}: register its schema with this orchestrator first; {self._resembling(name)}"
            )
        if isinstance(queue, JobSchema) and queue is not registration.schema:
            registration = Registration(queue, registration.queue)
            self._check(registration)
        return registration

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
        """Whether :meth:`registered` would declare the queue first, as the broker was away before."""
        return bool(self._undeclared) and queue_name_of(queue) not in self._registrations

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
            self._declare(registration)
        return registration

    def kind_of(self, queue: str) -> QueueKind | None:
        """Return the kind of a queue that is registered here."""
        registration = self._registrations.get(queue)
        return None if registration is None else registration.queue.kind

    def drop(self, queue: str) -> None:
        """Forget ``queue`` here."""
        self._registrations.pop(queue, None)
        self._undeclared.pop(queue, None)

    def _check(self, registration: Registration) -> None:
        """Refuse a second schema for one queue, unless its models are those of the first, defined again."""
        name = registration.queue.name
        present = self._registrations.get(name)
        if present is None or present.schema.input is UnknownModel:
            return
        before, after = _models(present.schema), _models(registration.schema)
        if before == after:
            return
        differences = [
            difference for models in zip(before, after, strict=True) for difference in changes(*models)
        ]
        if differences:
            raise SchemaConflict(_conflict(name, before, after, differences))

    def _declare(self, registration: Registration) -> None:
        name = registration.queue.name
        if registration.schema.is_limited:
            self._backend.capabilities.require_coordination("limits need")
        try:
            self._backend.declare(registration.queue)
        except BackendUnavailable:
            self._undeclared[name] = registration
            raise
        self._add(registration)
        _known[name] = registration

    def _add(self, registration: Registration) -> None:
        self._undeclared.pop(registration.queue.name, None)
        self._registrations[registration.queue.name] = registration

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
    if isinstance(queue, Mapping | BaseModel):
        raise InvalidName(f"queue name {queue!r:.80}: pass the queue first, and then the job")
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
