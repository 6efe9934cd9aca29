"""Which schema travels in which queue."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from ..domain import AnyJSON, JobSchema, Queue
from ..domain.errors import SchemaConflict
from ..domain.model_changes import changes


class Registration(NamedTuple):
    """A schema and the queue that carries it."""

    schema: JobSchema[Any, Any]
    queue: Queue


_known: dict[str, Registration] = {}
_SHOWN = 5


class UnknownModel(AnyJSON):
    """The model of a queue whose schema isn't known here: another may take its place."""


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
        """Refuse a second schema for one queue, unless its models are those of the first, defined again.

        Raises:
            SchemaConflict: the queue carries jobs of other models.
        """
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

    @property
    def has_undeclared(self) -> bool:
        """Whether :meth:`keep_undeclared` remembers any."""
        return bool(self._undeclared)

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
