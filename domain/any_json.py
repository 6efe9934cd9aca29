"""A model for payloads whose fields aren't known."""

from pydantic import BaseModel, ConfigDict


class AnyJSON(BaseModel):
    """Any JSON object, as the input or the output of a schema: ``JobSchema("echo", AnyJSON)``.

    Its fields are attributes, such as ``job.payload.path``; ``job.payload.model_dump()`` is the dict. Only
    the limits of every payload are checked.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
