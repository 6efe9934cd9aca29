"""Whether a function that a user passes can be called as it will be."""

import inspect
from collections.abc import Callable


def why_not_called_with(function: Callable[..., object], *arguments: object) -> str | None:
    """Say why ``function`` can't be called with ``arguments``. Return None if it can, or doesn't tell."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C: it says nothing of its arguments
        return None
    try:
        signature.bind(*arguments)
    except TypeError as error:
        return str(error)
    return None
