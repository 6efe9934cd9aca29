"""A result store that is away costs one wait, not one a job."""

import logging
from collections.abc import Sequence

import pytest

from mindtrace.jobs.adapters.rabbitmq import results as results_module
from mindtrace.jobs.adapters.rabbitmq.results import Results
from mindtrace.jobs.domain.errors import BackendError, BackendUnavailable
from mindtrace.jobs.ports import EndedJob, JobResult, ResultStatus, ResultStore

LOGGER = logging.getLogger("test")
ENDED = [EndedJob("a", JobResult(ResultStatus.DONE), 60.0)]


class Store(ResultStore):
    """Counts its calls, and fails while it has an error."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.error: BackendError | None = None

    def put(self, queue: str, ended: Sequence[EndedJob]) -> None:
        self._call()

    def get(self, queue: str, job_id: str, *, timeout_s: float = 0.0) -> JobResult | None:
        self._call()
        return None

    def forget(self, queue: str, ids: Sequence[str] | None = None) -> None:
        self._call()

    def close(self) -> None: ...

    def _call(self) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error


class Clock:
    """A clock that only a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        monkeypatch.setattr(results_module, "monotonic", lambda: self.now_s)


def test_a_store_that_is_away_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The calls after the first skip it, for whatever they want; one warning tells of it."""
    Clock(monkeypatch)
    store = Store()
    results = Results(store, LOGGER)
    store.error = BackendUnavailable("away")

    for _ in range(5):
        results.try_put("q", ENDED)
        results.try_forget("q", ["a"])

    assert store.calls == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_it_is_asked_again_after_a_pause_and_used_once_it_is_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The pauses grow; a store that is back is used by every call, and told of."""
    clock = Clock(monkeypatch)
    store = Store()
    results = Results(store, LOGGER)
    store.error = BackendUnavailable("away")
    results.try_put("q", ENDED)

    clock.now_s += 1.0
    results.try_put("q", ENDED)
    assert store.calls == 2
    clock.now_s += 1.0
    results.try_put("q", ENDED)
    assert store.calls == 2, "the second pause is longer"

    store.error = None
    clock.now_s += 60.0
    results.try_put("q", ENDED)
    results.try_put("q", ENDED)
    assert store.calls == 4
    assert "is back" in caplog.messages[-1]


def test_whoever_needs_the_store_asks_it_and_shows_that_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that a user waits for is never skipped; its answer ends the pause of the others."""
    Clock(monkeypatch)
    store = Store()
    results = Results(store, LOGGER)
    store.error = BackendUnavailable("away")
    results.try_put("q", ENDED)
    with pytest.raises(BackendUnavailable):
        results.get("q", "a", timeout_s=0.0)
    assert store.calls == 2

    store.error = None
    assert results.get("q", "a", timeout_s=0.0) is None
    results.try_put("q", ENDED)
    assert store.calls == 4


def test_a_refusal_is_told_and_skips_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A store that answers isn't away, whatever it answers."""
    store = Store()
    results = Results(store, LOGGER)
    store.error = BackendError("out of memory")

    results.try_put("q", ENDED)
    results.try_put("q", ENDED)

    assert store.calls == 2
    assert len(caplog.records) == 2
