"""From ``module:Name`` on the command line to the object that it names."""

import inspect
import sys
import traceback
from importlib import import_module
from typing import Any

from ..application.batch_consumer import BatchConsumer
from ..application.consumer import Consumer
from ..application.handler_errors import describe
from ..application.job_handler import FunctionHandler
from ..application.worker.worker import MakeConsumer
from ..domain import JobSchema, QueueType
from ..domain.errors import JobsError
from .errors import BadUsage, ConsumerFailed


def load(target: str, what: str) -> Any:
    """Import what ``target`` names; ``what`` says in messages what that should be.

    Raises:
        BadUsage: there is no such module or name in it, or importing it fails.
    """
    module_name, separator, name = target.partition(":")
    if not separator or not module_name or not name:
        module, dot, last = target.rpartition(".")
        example = f"{module}:{last}" if dot and module and last and not separator else f"tasks:{what}"
        raise BadUsage(f"{target!r}: write module:{what}, such as {example}")
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            if module_name.endswith(".py"):
                raise BadUsage(f"{target!r}: leave .py out, as in {module_name[:-3]}:{name}") from None
            raise BadUsage(
                f"no module {error.name!r} is found from here: run the command in its folder, or name "
                "that folder with --app-dir"
            ) from None
        raise BadUsage(_failed(module_name, error)) from error
    except (Exception, SystemExit) as error:  # whatever the module does when it is imported
        raise BadUsage(_failed(module_name, error)) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise BadUsage(f"module {module_name!r} has no {name!r}; {_listed(target)}")
        found = getattr(found, part)
    return found


def load_maker(target: str) -> MakeConsumer:
    """Return what makes the consumer that ``target`` names: its class, or a function.

    Raises:
        BadUsage: it is neither.
    """
    found = load(target, "ConsumerClass")
    if isinstance(found, FunctionHandler):
        return found.consumer
    if isinstance(found, Consumer):
        cls = type(found).__name__
        raise BadUsage(f"{target} is an instance: name its class, {cls}; each thread makes its own instance")
    if isinstance(found, type) and not issubclass(found, Consumer):
        raise BadUsage(
            f"{target} is no Consumer: derive {found.__name__} from mindtrace.jobs.Consumer, or name "
            f"another; {_listed(target)}"
        )
    if not callable(found):
        raise BadUsage(
            f"{target} is of type {type(found).__name__}: name a Consumer class, or a function that "
            f"makes one; {_listed(target)}"
        )

    def make() -> Consumer:
        try:
            consumer = found()
        except JobsError:
            raise
        except (Exception, SystemExit) as error:  # whatever its constructor does
            if isinstance(error, TypeError) and _refuses_call(error):
                raise BadUsage(f"{target}() fails: {error}; {_remedy_of_call(found)}") from error
            raise ConsumerFailed(f"{target}() fails{_place(error)}: {describe(error)}") from error
        if not isinstance(consumer, Consumer):
            raise BadUsage(f"{target} must return a Consumer, not {type(consumer).__name__}")
        return consumer

    return make


def _refuses_call(error: TypeError) -> bool:
    """Whether Python refused the arguments, and nothing that was called raised the error itself."""
    return error.__traceback__ is not None and error.__traceback__.tb_next is None


def _remedy_of_call(maker: object) -> str:
    """Say what is probably missing where a worker can't call what should make a consumer."""
    if inspect.isroutine(maker):
        return "to run jobs by it, write @job_handler(schema) above it; to make a consumer, take no arguments"
    return "a worker calls it without arguments"


def load_schema(target: str) -> tuple[JobSchema[Any, Any], QueueType | None]:
    """Return the schema that ``target`` names, itself or by its consumer, and the consumer's queue type.

    Raises:
        BadUsage: it names neither.
    """
    found = load(target, "ConsumerClass")
    if isinstance(found, JobSchema):
        return found, None
    if isinstance(found, FunctionHandler):
        return found.schema, found.queue_type
    if isinstance(found, type) and issubclass(found, Consumer) and (own := found.own_schema()) is not None:
        return own, found.queue_type
    raise BadUsage(f"{target} is neither a JobSchema nor a Consumer class with a schema; {_listed(target)}")


def _listed(target: str) -> str:
    """List the consumers in the module of ``target``, which is imported."""
    module = target.partition(":")[0]
    names = [
        name
        for name, value in vars(sys.modules[module]).items()
        if (
            isinstance(value, type) and issubclass(value, Consumer) and value not in (Consumer, BatchConsumer)
        )
        or isinstance(value, FunctionHandler)
    ]
    return f"consumers in {module}: {', '.join(names) or 'none'}"


def _failed(module: str, error: BaseException) -> str:
    return f"module {module!r} can't be imported{_place(error)}: {describe(error)}"


def _place(error: BaseException) -> str:
    """Say where the user's code failed: the last frame that isn't the import machinery's."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename
    ]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if len(frames) > 1 else ""
