"""Which module a command imports to find consumers in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ...domain.errors import UsageError

_module: ContextVar[str | None] = ContextVar("module", default=None)


@contextmanager
def importing(module: str) -> Iterator[None]:
    """Refuse consuming in this thread meanwhile: the command would wait for it, perhaps for ever."""
    token = _module.set(module)
    try:
        yield
    finally:
        _module.reset(token)


def check_not_importing(consumer: str) -> None:
    """Refuse to run jobs while a command imports the module that asks for it.

    Raises:
        UsageError: it does.
    """
    if (module := _module.get()) is not None:
        raise UsageError(
            f"{consumer} runs jobs as the module {module!r} is imported, so the import would not end: write "
            'those lines under if __name__ == "__main__":'
        )
