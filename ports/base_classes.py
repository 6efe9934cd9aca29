"""Choose the base classes: those of ``mindtrace-core``, or stand-ins.

If ``mindtrace-core`` is installed (it needs Python 3.12), they are its ``Mindtrace`` and ``MindtraceABC``.
Otherwise they are the stand-ins below, with the same interface: ``logger``, ``config``, ``name``,
``unique_name`` on class and instance, and the context manager.
"""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

ValueT = TypeVar("ValueT")


class _PerClass(Generic[ValueT]):
    """A value computed from the class, readable on the class and on its instances."""

    def __init__(self, compute: Callable[[type], ValueT]) -> None:
        self._compute = compute

    def __get__(self, instance: object, owner: type) -> ValueT:
        return self._compute(owner)


class LightMindtrace:
    """Stand-in for ``mindtrace.core.Mindtrace``."""

    logger: _PerClass[logging.Logger] = _PerClass(
        lambda cls: logging.getLogger(f"{cls.__module__}.{cls.__name__}")
    )
    config: _PerClass[Mapping[str, str]] = _PerClass(
        lambda cls: {key: value for key, value in os.environ.items() if key.startswith("MINDTRACE_")}
    )
    name: _PerClass[str] = _PerClass(lambda cls: cls.__name__)
    unique_name: _PerClass[str] = _PerClass(lambda cls: f"{cls.__module__}.{cls.__name__}")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool | None:
        return None


class LightMindtraceABC(LightMindtrace, ABC):
    """Stand-in for ``mindtrace.core.MindtraceABC``."""


def _core_is_installed() -> bool:
    try:
        return find_spec("mindtrace.core") is not None
    except ModuleNotFoundError:
        return False


if TYPE_CHECKING or not _core_is_installed():
    Mindtrace = LightMindtrace
    MindtraceABC = LightMindtraceABC
    _Base = LightMindtraceABC
else:
    from mindtrace.core import Config, Mindtrace, MindtraceABC

    class _OwnConfig:
        """The configuration of an instance, made when it is first asked for, and that of its class."""

        def __get__(self, instance: Any, owner: type) -> Any:
            if instance is None:
                return vars(Mindtrace)["config"].__get__(None, owner)
            return vars(instance).setdefault("config", Config())

    class _Base(MindtraceABC):
        """Leaves out what Mindtrace's ``__init__`` makes: a logger and a configuration, in milliseconds.

        An instance has the logger of its class, which has the same name.
        """

        config = _OwnConfig()

        def __init__(self, **kwargs: Any) -> None:
            following = super().__init__
            if following.__func__ is Mindtrace.__init__:  # and no class of the user's in between
                following = super(Mindtrace, self).__init__
            following(**kwargs)


class Closeable(_Base):
    """An object that closes at the end of its ``with`` block."""

    @abstractmethod
    def close(self) -> None:
        """Close it. Closing it again does nothing."""

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool | None:
        """Close it."""
        self.close()
        return super().__exit__(exc_type, exc_val, exc_tb)


__all__ = ["Closeable", "LightMindtrace", "LightMindtraceABC", "Mindtrace", "MindtraceABC"]
