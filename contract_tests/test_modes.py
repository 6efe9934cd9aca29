"""The suite's modes: a check that drives a consumer is a test in each of them, and one row of the matrix."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest

from mindtrace.jobs import Job
from mindtrace.jobs.contract import CLAUSES, run_contract
from mindtrace.jobs.contract.app import BatchRecorder, Numbers, app_on
from mindtrace.jobs.contract.capability_matrix import render
from mindtrace.jobs.contract.check_context import CheckContext
from mindtrace.jobs.contract.modes import EVERY_MODE, ONE_AT_A_TIME, Mode
from mindtrace.jobs.contract.profiles import PROFILES
from mindtrace.jobs.contract.registry import all_checks

from .harnesses import LocalHarness

NAMES = [mode.name for mode in EVERY_MODE]


@pytest.mark.parametrize("mode", EVERY_MODE, ids=NAMES)
def test_a_consumer_runs_as_many_jobs_at_once_as_its_mode_says(mode: Mode) -> None:
    side_by_side, batches = threading.Barrier(mode.side_by_side), list[int]()
    context = CheckContext(LocalHarness(), PROFILES["quick"], mode=mode)

    def meet(_job: object) -> None:
        side_by_side.wait(30)

    with app_on(context) as app:
        ids = app.publish_many(mode.at_once)
        consumer = app.recorder(meet, batch_wait_s=30.0)
        if isinstance(consumer, BatchRecorder):
            run_batch = consumer.run_batch

            def counted(jobs: Sequence[Job[Numbers]]) -> list[Any]:
                batches.append(len(jobs))
                return run_batch(jobs)

            with mock.patch.object(consumer, "run_batch", counted):
                app.consume(consumer, len(ids))
        else:
            app.consume(consumer, len(ids))

        assert consumer.ran(ids)
        assert batches == ([mode.at_once] if mode.in_batches else [])
        assert app.orchestrator.dead_letters("sums") == []


def test_each_mode_of_a_check_is_a_test_that_names_it() -> None:
    found = [
        check.name for check in all_checks() if check.name.startswith("test_PUB2_the_id_is_the_jobs_own")
    ]

    assert found == [f"test_PUB2_the_id_is_the_jobs_own[{name}]" for name in NAMES]


def test_a_check_that_drives_a_consumer_does_so_in_every_mode_unless_it_waits_for_a_lease() -> None:
    modes: dict[str, list[str]] = {}
    for check in all_checks():
        if check.mode is not None:
            modes.setdefault(check.run.__name__, []).append(check.mode.name)
    by_threads = [name for name in NAMES if name != "tasks-8"]

    assert modes.pop("a_long_handler_keeps_its_job") == by_threads
    assert modes.pop("a_crash_is_charged_apart_beside_other_jobs") == by_threads[1:]
    assert {name for name, names in modes.items() if names != NAMES} == set()
    assert len(modes) > 20


def test_what_ran_before_there_were_modes_runs_first() -> None:
    """So that a fault is found by the simplest check that finds it."""
    later = [check.mode not in (None, ONE_AT_A_TIME) for check in all_checks()]

    assert later == sorted(later)


def test_a_result_names_its_mode() -> None:
    results = list(run_contract(LocalHarness(), profile="quick", clauses=["PUB-2"]))

    assert [result.as_json()["mode"] for result in results if result.mode] == NAMES
    assert [result.mode for result in results if "an_id_is_kept" in result.check] == [None]


def test_the_modes_of_a_check_are_one_row_of_the_matrix_and_broken_if_one_of_them_is() -> None:
    results = list(run_contract(LocalHarness(), profile="quick", clauses=["PUB-2"]))
    last = replace(results[-1], broken="PUB-2")

    holds, broken = _row("PUB-2", results), _row("PUB-2", [*results[:-1], last])

    assert holds == f"| PUB-2 | {CLAUSES['PUB-2']} | holds |"
    assert broken == f"| PUB-2 | {CLAUSES['PUB-2']} | **broken** |"


@pytest.mark.parametrize("lacking", ["results", "coordination"])
def test_the_matrix_says_that_a_backend_may_borrow_a_store_if_one_lacks_it(lacking: str) -> None:
    assert "Each backend is shown by itself" not in _matrix([])
    assert "Each backend is shown by itself" in _matrix([], **{lacking: False})


def test_the_matrix_leaves_out_a_backend_on_which_only_some_checks_ran() -> None:
    assert "Borrowing" not in _matrix([])


def _row(clause: str, results: Sequence[Any]) -> str:
    (row,) = [line for line in _matrix(results).splitlines() if line.startswith(f"| {clause} ")]
    return row


def _matrix(found: Sequence[Any], **changes: object) -> str:
    capabilities = CheckContext(LocalHarness(), PROFILES["quick"]).capabilities
    declared = {name: getattr(capabilities, name) for name in capabilities.__dataclass_fields__} | changes
    backend = {"capabilities": declared, "needs": None, "checks": [result.as_json() for result in found]}
    return render({"backends": {"Local": backend, "Borrowing": backend | {"needs": ["results"]}}})
