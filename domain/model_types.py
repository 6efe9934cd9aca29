"""The types of jobs: of what they carry, and of what their handlers return."""

from collections.abc import Awaitable, Mapping
from typing import Any, TypeAlias, Union

from pydantic import BaseModel
from typing_extensions import TypeVar

from .then import Then

InT = TypeVar("InT", bound=BaseModel, default=Any)
OutT = TypeVar("OutT", bound=BaseModel, default=Any)
OutCo = TypeVar("OutCo", bound=BaseModel, covariant=True, default=Any)

Returned: TypeAlias = Union[OutT, Mapping[str, Any], Then[OutT], None]  # noqa: UP007
Answer: TypeAlias = Union[Returned[OutT], Awaitable[Returned[OutT]]]  # noqa: UP007
"""What a handler returns: an instance of the output model, a dict that validates as one, or None; or a
:class:`Then`, which names the next job as well."""
