"""No modules import each other in a circle, imports for types counted: each can be read, and moved, alone."""

import grimp
import pytest

KNOWN = {
    frozenset({"application.api.job_queue", "application.api.orchestrator"}),
    frozenset({"application.api_async.async_job_queue", "application.api_async.async_orchestrator"}),
    frozenset({"domain.schema", "domain.then"}),
}
"""A queue calls the orchestrator that made it. A schema names what follows a dead job, and that names a
schema. No other circle is accepted."""


def circles_of(graph: grimp.ImportGraph) -> set[frozenset[str]]:
    """Return the sets of modules each of which imports all others of its set, directly or through others."""
    behind = {module: graph.find_upstream_modules(module) for module in graph.modules}
    together = {
        module: frozenset(each for each in imported if module in behind.get(each, ())) | {module}
        for module, imported in behind.items()
    }
    return {circle for circle in together.values() if len(circle) > 1}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("mindtrace.jobs", cache_dir=None)


def test_no_modules_import_each_other_in_a_circle(graph: grimp.ImportGraph) -> None:
    found = {
        frozenset(name.removeprefix("mindtrace.jobs.") for name in circle) for circle in circles_of(graph)
    }

    assert found <= KNOWN, "let one of them take what it needs as a Protocol, or move what both need"


def test_a_circle_of_three_is_found(graph: grimp.ImportGraph) -> None:
    names = [f"mindtrace.jobs.domain.planted_{number}" for number in range(3)]
    for name in names:
        graph.add_module(name)
    for importer, imported in zip(names, [*names[1:], names[0]], strict=True):
        graph.add_import(importer=importer, imported=imported)

    assert frozenset(names) in circles_of(graph)
