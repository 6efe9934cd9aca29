"""Choose the base classes: those of ``mindtrace-core``, or stand-ins.

If ``mindtrace-core`` is installed (it needs Python 3.12), they are its ``Mindtrace`` and ``MindtraceABC``.
Otherwise they are the stand-ins below, with the same interface: ``logger``, ``config``, ``name``,
``unique_name`` on class and instance, and the context manager. An object of this library logs, opens and
closes the same in both cases.
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


def _logger_of(class_: type) -> logging.Logger:
    return logging.getLogger(f"{class_.__module__}.{class_.__name__}")


class LightMindtrace:
    """Stand-in for ``mindtrace.core.Mindtrace``."""

    logger: _PerClass[logging.Logger] = _PerClass(_logger_of)
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
        """Has Mindtrace's names and configuration, and does the rest as without mindtrace-core.

        It leaves out what Mindtrace's ``__init__`` makes: a logger and a configuration, in milliseconds. The
        logger is one of Python's: Mindtrace's writes to a file in the home folder, fails where it can't, and
        keeps its records from the root logger. Mindtrace's ``__exit__`` logs every error that passes through.
        """

        logger = _PerClass(_logger_of)
        config = _OwnConfig()

        def __init__(self, **kwargs: Any) -> None:
            following = super().__init__
            if following.__func__ is Mindtrace.__init__:  # and no class of the user's in between
                following = super(Mindtrace, self).__init__
            following(**kwargs)

        def __enter__(self) -> Self:
            following = super().__enter__
            return self if following.__func__ is Mindtrace.__enter__ else following()

        def __exit__(self, *error: Any) -> bool | None:
            following = super().__exit__
            return None if following.__func__ is Mindtrace.__exit__ else following(*error)

    # By name, the library's loggers are below `mindtrace`, which mindtrace-core sets up to pass nothing on.
    # So they get the root logger as their parent. A logger that exists keeps the parent that it is given.
    logging.getLogger("mindtrace")
    logging.getLogger("mindtrace.jobs").parent = logging.getLogger()


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
