"""What every test folder shares."""

import gc
import signal
from collections.abc import Generator

import pytest

pytest_plugins = ["brokers.fixtures", "verdict"]


def pytest_configure() -> None:
    """Have Ctrl-C mean what it does at a terminal: a shell has what it runs in the background ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without the garbage collector, and hide what stays until the end from it.

    Thousands of tests are 300,000 objects. It would go through them again and again, in each process of
    pytest-xdist.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
