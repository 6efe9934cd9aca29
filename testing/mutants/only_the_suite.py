"""A pytest plugin that leaves only the checks of the contract suite, as other adapters have no more."""

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out all other tests of the module."""
    checks = [item for item in items if "contract_context" in getattr(item, "fixturenames", ())]
    chosen = set(checks)
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = checks
