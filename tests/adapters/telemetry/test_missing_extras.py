"""An observer whose library isn't installed names the extra that brings it, as a client of a broker does."""

import sys
from importlib import import_module
from importlib.metadata import version

import pytest

from mindtrace.jobs.errors import AdapterNotInstalled


@pytest.mark.parametrize(
    ("module", "library", "observer", "extra"),
    [
        ("prometheus", "prometheus_client", "PrometheusObserver", "metrics"),
        ("opentelemetry", "opentelemetry", "TracingObserver", "tracing"),
    ],
)
def test_a_library_that_is_missing_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, library: str, observer: str, extra: str
) -> None:
    """The message has the command that installs the extra, and ``except ImportError`` catches it."""
    name = f"mindtrace.jobs.adapters.telemetry.{module}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, library, None)

    with pytest.raises(AdapterNotInstalled) as raised:
        import_module(name)

    remedy = f"pip install 'mindtrace-jobs[{extra}]>={version('mindtrace-jobs')}'"
    assert str(raised.value) == f"{observer} needs {library}: {remedy}"
    assert (raised.value.name, isinstance(raised.value, ImportError)) == (library, True)
