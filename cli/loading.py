"""From ``module:Name`` on the command line to the object that it names."""

import inspect
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from ..application.api.batch_consumer import BatchConsumer
from ..application.api.consumer import Consumer
from ..application.api.job_handler import FunctionHandler
from ..application.checks.importing import importing
from ..application.failures.handler_errors import describe
from ..application.worker.worker import MakeConsumer, make_consumers
from ..domain import JobSchema, QueueType
from ..domain.errors import JobsError
from ..ports import Observer
from .errors import BadUsage, ConsumerFailed


def load(target: str, what: str) -> Any:
    """Import what ``target`` names; ``what`` says in messages what that should be.

    Raises:
        BadUsage: there is no such module or name in it, or importing it fails.
    """
    module_name, separator, name = target.partition(":")
    if not separator or not module_name or not name:
        raise BadUsage(f"{target!r}: write module:{what}, such as {_example(target, what)}")
    found: Any = _import(module_name, f":{name}")
    for part in name.split("."):
        if not hasattr(found, part):
            named = _listed(target) if what == "ConsumerClass" else _defined(module_name)
            raise BadUsage(f"module {module_name!r} has no {name!r}; {named}")
        found = getattr(found, part)
    return found


def _example(target: str, what: str) -> str:
    module, dot, last = target.rpartition(".")
    return f"{module}:{last}" if dot and module and last and ":" not in target else f"tasks:{what}"


def _import(module_name: str, rest: str) -> Any:
    """Import a module; ``rest`` is what stands after its name."""
    try:
        with importing(module_name):
            return import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            target = f"{module_name}{rest}"
            if module_name.endswith(".py"):
                raise BadUsage(f"{target!r}: leave .py out, as in {module_name[:-3]}{rest}") from None
            if not rest and module_name.rpartition(".")[0] in sys.modules:  # which was imported first
                example = _example(target, "ConsumerClass")
                raise BadUsage(f"{target!r}: write module:ConsumerClass, such as {example}") from None
            raise BadUsage(
                f"no module {error.name!r} is found from here: run the command in its folder, or name "
                "that folder with --app-dir"
            ) from None
        raise BadUsage(_failed(module_name, error)) from error
    except (Exception, SystemExit) as error:  # whatever the module does when it is imported
        raise BadUsage(_failed(module_name, error)) from error


def load_maker(target: str) -> MakeConsumer:
    """Return what makes the consumers that ``target`` names: a class, a function, or a whole module.

    Raises:
        BadUsage: it is none of these, or the module has no consumer.
    """
    if target and ":" not in target:
        return _maker_of_module(target)
    return _maker_of(target, load(target, "ConsumerClass"))


def _maker_of_module(module_name: str) -> MakeConsumer:
    """Return what makes every consumer of a module, in the order of their definitions."""
    found = _consumers_in(_import(module_name, ""))
    if not found:
        raise BadUsage(
            f"module {module_name!r} has no consumers: none is defined there or named in its __all__; name "
            f"one as module:ConsumerClass, or another module"
        )
    makers = [_maker_of(f"{module_name}:{name}", value) for name, value in found.items()]
    return lambda: [consumer for make in makers for consumer in make_consumers(make)]


def _consumers_in(module: Any) -> dict[str, Any]:
    """Return the consumers that are defined in a module or its submodules, or named in its ``__all__``.

    A class without a schema is the base of others, unless it makes its name in a constructor of its own. What
    begins with an underscore isn't meant to be run.
    """
    exported = getattr(module, "__all__", ())
    home = f"{module.__name__}."
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        is_own = f"{getattr(value, '__module__', None)}.".startswith(home) and not name.startswith("_")
        if (is_own or name in exported) and _is_consumer(value) and value not in found.values():
            found[name] = value
    return found


def _is_consumer(value: Any) -> bool:
    """Whether a worker can probably make a consumer of it."""
    if isinstance(value, FunctionHandler):
        return True
    if not isinstance(value, type) or not issubclass(value, Consumer):
        return False
    makes_name = value.__init__ is not Consumer.__init__ and not inspect.isabstract(value)
    return makes_name or getattr(value, "schema", None) is not None


def _maker_of(target: str, found: Any) -> MakeConsumer:
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

    def make() -> Sequence[Consumer]:
        try:
            made = found()
        except JobsError:
            raise
        except (Exception, SystemExit) as error:  # whatever its constructor does
            if isinstance(error, TypeError) and _refuses_call(error):
                raise BadUsage(f"{target}() fails: {error}; {_remedy_of_call(found)}") from error
            raise ConsumerFailed(f"{target}() fails{_place(error)}: {describe(error)}") from error
        consumers = [made] if isinstance(made, Consumer) else made
        if not isinstance(consumers, list | tuple):
            raise BadUsage(f"{target} must return a Consumer or a list of them, not {type(made).__name__}")
        if not consumers:
            raise BadUsage(f"{target} returned no consumers: return at least one")
        for each in consumers:
            if not isinstance(each, Consumer):
                raise BadUsage(f"{target} must return a list of consumers: {each!r:.80} is none")
        return consumers

    return make


def load_observer(target: str) -> Observer:
    """Return the observer that ``target`` names, or that the class or function makes which it names.

    Raises:
        BadUsage: there is none.
    """
    found = load(target, "make_observer")
    if isinstance(found, Observer):
        return found
    if not callable(found) or isinstance(found, FunctionHandler):
        raise BadUsage(
            f"{target} is of type {type(found).__name__}: name an Observer, its class, or a function that "
            "makes one"
        )
    try:
        made = found()
    except Exception as error:  # whatever it does
        if isinstance(error, TypeError) and _refuses_call(error):
            raise BadUsage(
                f"{target}() fails: {error}; a worker calls it without arguments: name a function that makes "
                "the observer"
            ) from error
        raise BadUsage(f"{target}() fails{_place(error)}: {describe(error)}") from error
    if not isinstance(made, Observer):
        raise BadUsage(
            f"{target}() must return an Observer, not {type(made).__name__}: derive its class from "
            "mindtrace.jobs.Observer"
        )
    return made


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
    raise BadUsage(
        f"{target} is neither a JobSchema, nor a Consumer class with a schema, nor a function "
        f"with @job_handler; {_listed(target)}"
    )


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


def _defined(module: str) -> str:
    """List the functions and classes that a module, which is imported, defines."""
    own = [name for name, value in vars(sys.modules[module]).items() if _is_defined_in(module, name, value)]
    return f"{module} defines: {', '.join(own) or 'nothing'}"


def _is_defined_in(module: str, name: str, value: object) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module and not name.startswith("_")


def _failed(module: str, error: BaseException) -> str:
    return f"module {module!r} can't be imported{_place(error)}: {describe(error)}"


def _place(error: BaseException) -> str:
    """Say where the user's code failed: the last frame that isn't the import machinery's."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename
    ]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if len(frames) > 1 else ""
