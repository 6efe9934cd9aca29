"""Which schema travels in which queue."""

from typing import Any, NamedTuple

from ..domain import JobSchema, Queue
from ..domain.errors import SchemaConflict


class Registration(NamedTuple):
    """A schema and the queue that carries it."""

    schema: JobSchema[Any, Any]
    queue: Queue


_known: dict[str, Registration] = {}


class SchemaRegistry:
    """The schemas of one orchestrator, by the name of their queue.

    What was registered anywhere in this process is remembered besides, so that a consumer can be connected
    to a second orchestrator without registering its schema again. A schema is a definition, like a class;
    no broker and no job is shared this way.
    """

    def __init__(self) -> None:
        self._registrations: dict[str, Registration] = {}
        self._undeclared: dict[str, Registration] = {}
        """Those whose queue couldn't be declared, as the broker was away."""

    def check(self, registration: Registration) -> None:
        """Refuse a second schema for one queue.

        Raises:
            SchemaConflict: the queue carries jobs of other models.
        """
        schema = registration.schema
        present = self._registrations.get(registration.queue.name)
        if present is None:
            return
        if (present.schema.input, present.schema.output) != (schema.input, schema.output):
            before, after = _models(present.schema), _models(schema)
            if before == after:
                remedy = "these classes were defined again, as by a notebook cell; make a new Orchestrator"
            else:
                remedy = "give the other schema another name, or another queue: register(schema, queue=…)"
            raise SchemaConflict(
                f"queue {registration.queue.name!r} carries jobs of {before}, not {after}: {remedy}"
            )

    def add(self, registration: Registration) -> None:
        """Remember ``registration``, in place of an earlier one of its queue."""
        self.add_here(registration)
        _known[registration.queue.name] = registration

    def add_here(self, registration: Registration) -> None:
        """Likewise, but for no other orchestrator of this process."""
        self._undeclared.pop(registration.queue.name, None)
        self._registrations[registration.queue.name] = registration

    def keep_undeclared(self, registration: Registration) -> None:
        """Remember ``registration`` until its queue can be declared."""
        self._undeclared[registration.queue.name] = registration

    def find_undeclared(self, queue: str) -> Registration | None:
        """Return what :meth:`keep_undeclared` remembered for ``queue``."""
        return self._undeclared.get(queue)

    def find(self, queue: str) -> Registration | None:
        """Return what was registered here for ``queue``."""
        return self._registrations.get(queue)

    def find_known(self, queue: str) -> Registration | None:
        """Return what was registered for ``queue`` here, or else last anywhere in this process."""
        return self._registrations.get(queue) or _known.get(queue)

    def drop(self, queue: str) -> None:
        """Forget ``queue`` here."""
        self._registrations.pop(queue, None)
        self._undeclared.pop(queue, None)

    def names(self) -> list[str]:
        """The names of the queues registered here, sorted."""
        return sorted(self._registrations)


def _models(schema: JobSchema[Any, Any]) -> str:
    return f"{schema.input.__name__} -> {schema.output.__name__}"
