"""The base classes are mindtrace-core's where it is installed, and light stand-ins elsewhere.

Both cases run the same tests; which one it is, the environment decides.
"""

import logging
from abc import ABC
from importlib.util import find_spec

import pytest

from mindtrace.jobs import (
    Consumer,
    ConsumerBackend,
    JobInput,
    JobSchema,
    LocalClient,
    LocalConsumerBackend,
    Orchestrator,
    OrchestratorBackend,
)
from mindtrace.jobs.domain.errors import HandlerMissing
from mindtrace.jobs.ports.base_classes import LightMindtrace, LightMindtraceABC, Mindtrace, MindtraceABC

CORE = find_spec("mindtrace.core") is not None


def test_one_module_decides_what_the_bases_are() -> None:
    """Where mindtrace-core can be imported its classes are taken, and no others."""
    if CORE:
        from mindtrace import core

        assert (Mindtrace, MindtraceABC) == (core.Mindtrace, core.MindtraceABC)
    else:
        assert (Mindtrace, MindtraceABC) == (LightMindtrace, LightMindtraceABC)


@pytest.mark.parametrize(
    "class_", [Consumer, ConsumerBackend, OrchestratorBackend, LocalClient, LocalConsumerBackend]
)
def test_what_is_derived_from_is_abstract_by_the_same_base(class_: type) -> None:
    """Consumers, backends and consumer backends are real subclasses of ``MindtraceABC``."""
    assert issubclass(class_, MindtraceABC)
    assert issubclass(class_, Mindtrace)
    assert issubclass(class_, ABC)


def test_an_orchestrator_is_a_mindtrace() -> None:
    """It is no abstract class, and so derives from ``Mindtrace`` itself."""
    assert issubclass(Orchestrator, Mindtrace)


class Component(LightMindtrace):
    pass


class RealComponent(Mindtrace):
    pass


@pytest.mark.parametrize("class_", [Component, RealComponent, Orchestrator, LocalClient, Consumer])
def test_a_class_knows_its_names_and_its_logger(class_: type[Mindtrace]) -> None:
    """The surface that mindtrace-core gives on the class is there in both cases."""
    full = f"{class_.__module__}.{class_.__qualname__}"

    assert class_.name == class_.__name__
    assert class_.unique_name == full
    assert isinstance(class_.logger, logging.Logger)
    assert class_.logger.name.endswith(full)
    assert class_.config is not None


@pytest.mark.parametrize("class_", [Component, RealComponent])
def test_an_instance_has_them_too_and_is_a_context_manager(class_: type[Mindtrace]) -> None:
    """The same surface on the instance; an error leaves the context as it was raised."""
    with class_() as component:
        assert (component.name, component.unique_name) == (class_.name, class_.unique_name)
        assert component.logger.name.endswith(class_.__name__)
        component.name = "mine"  # a subclass may well have a name of its own
        assert component.name == "mine"

    with pytest.raises(LookupError, match="passed on"), class_():
        raise LookupError("passed on")


class Idle(Consumer):
    def run(self, job: object) -> None: ...


def test_an_object_of_ours_has_what_its_base_gives_an_instance() -> None:
    """Each instance may have a name, a logger and a configuration of its own."""
    one, other = Idle("points"), Idle("points")

    assert (one.name, one.unique_name, one.logger) == (Idle.name, Idle.unique_name, Idle.logger)
    assert set(vars(RealComponent())) <= {"logger", "config"}
    if CORE:
        assert one.config is one.config
        assert one.config is not other.config
        assert type(one.config) is type(Idle.config) is type(RealComponent().config)
    one.config, one.logger = {"COLOUR": "red"}, logging.getLogger("mine")  # type: ignore[assignment]
    assert (one.config, one.logger.name) == ({"COLOUR": "red"}, "mine")
    assert other.config != one.config
    assert other.logger is Idle.logger


def test_a_class_of_the_users_beside_ours_is_initialised() -> None:
    """Wherever it stands among the bases."""

    class Component(Mindtrace):
        def __init__(self, **kwargs: object) -> None:
            super().__init__(**kwargs)
            self.initialised = True

    class Before(Component, Idle):
        def __init__(self) -> None:
            Idle.__init__(self, "points")

    class After(Idle, Component):
        pass

    assert After("points").initialised
    assert Before().queue_name == "points"


@pytest.mark.skipif(not CORE, reason="without mindtrace-core there is no configuration to make")
def test_making_an_object_of_ours_makes_no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """mindtrace-core reads files for each, which takes a millisecond; a consumer is made for each thread."""
    from mindtrace.core import Config

    def make_all() -> None:
        with LocalClient() as client, Orchestrator(client) as orchestrator, Idle("points") as consumer:
            orchestrator.register(JobSchema("points", JobInput))
            consumer.connect(orchestrator)
            orchestrator.receive_message("points")

    make_all()  # by now, each class has its logger
    made: list[object] = []
    whole = Config.__init__
    monkeypatch.setattr(Config, "__init__", lambda self, *args: made.append(self) or whole(self, *args))
    make_all()

    assert made == []
    assert Idle("points").config in made


def test_the_light_configuration_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without mindtrace-core, ``config`` holds the variables named MINDTRACE_."""
    monkeypatch.setenv("MINDTRACE_COLOUR", "red")

    assert Component.config["MINDTRACE_COLOUR"] == "red"
    assert "PATH" not in Component.config


def test_a_light_abstract_class_cannot_be_instantiated() -> None:
    """``LightMindtraceABC`` brings ``abstractmethod`` to life."""
    with pytest.raises(TypeError, match="abstract"):
        OrchestratorBackend()
    with pytest.raises(TypeError, match="abstract"):
        ConsumerBackend()


def test_a_consumer_without_a_handler_says_so_on_either_base() -> None:
    """The refusal is ours, in words, and no list of abstract methods."""
    with pytest.raises(HandlerMissing, match=r"derive a class that defines run\(self, job\)"):
        Consumer("points")
