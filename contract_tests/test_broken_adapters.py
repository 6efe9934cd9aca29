"""The suite's own test: it fails every broken adapter by the clauses it breaks, and passes a correct one."""

import threading
from pathlib import Path

import pytest

from mindtrace.jobs.contract import CLAUSES, run_contract
from mindtrace.jobs.contract.broken import FAULTS, NO_FAULT, BrokenHarness, Fault, detect, possible_faults
from mindtrace.jobs.contract.broken.fault_registry import everywhere
from mindtrace.jobs.contract.broken.pass_through import PassThrough
from mindtrace.jobs.contract.broken.traces import LeavesAThreadForEachAwaitedResult
from mindtrace.jobs.contract.registry import all_checks

from .harnesses import ShortTimeoutHarness, TransactionalLocalHarness

TABLE = Path(__file__).parents[1] / "docs" / "broken_adapters.md"
ROWS = [line.split(" | ") for line in TABLE.read_text("utf-8").splitlines() if line.startswith("| **")]
"""Each has a fault and its sentence, a clause, the check that found it, and how many examples that took."""


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_caught_by_each_clause_that_it_breaks(fault: Fault) -> None:
    known = {row[1]: row[2].strip("`") for row in ROWS if row[0].startswith(f"| **{fault.name}**")}
    found = detect(ShortTimeoutHarness(), fault, known=known)
    escaped = [clause for clause, result in found.items() if result is None]

    assert not escaped, f"{fault.name}: {fault.sentence} The checks of {escaped} don't find it"


def test_threads_that_end_meanwhile_hide_none_that_is_left() -> None:
    """As those of an earlier check do, which are about to end: the number of threads may stay the same."""
    fault = Fault(LeavesAThreadForEachAwaitedResult, ("CON-2",), everywhere)
    for tenths in range(40):
        threading.Timer(tenths / 10, lambda: None).start()

    results = run_contract(BrokenHarness(ShortTimeoutHarness(), fault), profile="quick", clauses=["CON-2"])

    assert {result.broken for result in results} == {None, "CON-2"}


@pytest.mark.long
def test_wrapping_an_adapter_breaks_nothing() -> None:
    results = run_contract(BrokenHarness(TransactionalLocalHarness(), NO_FAULT), profile="quick")

    assert [result for result in results if result.broken] == []


def test_what_is_no_fault_is_not_caught() -> None:
    assert detect(TransactionalLocalHarness(), Fault(PassThrough, ("PUB-1", "SET-1"), everywhere)) == {
        "PUB-1": None,
        "SET-1": None,
    }


def test_every_clause_has_a_check() -> None:
    assert {clause for check in all_checks() for clause in check.clauses} == set(CLAUSES)


def test_every_fault_names_clauses_of_the_contract_and_itself_but_once() -> None:
    assert {clause for fault in FAULTS for clause in fault.clauses} <= set(CLAUSES)
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_every_fault_says_what_is_wrong_in_a_sentence_of_its_own() -> None:
    assert all(fault.sentence.endswith(".") for fault in FAULTS)
    assert len({fault.sentence for fault in FAULTS}) == len(FAULTS)


def test_the_local_adapter_can_have_every_fault() -> None:
    assert possible_faults(TransactionalLocalHarness()) == FAULTS


def test_the_table_in_the_documentation_has_every_fault() -> None:
    """Made by ``python -m mindtrace.jobs.contract.broken contract_tests.harnesses:ShortTimeoutHarness``."""
    assert [row[:2] for row in ROWS] == [
        [f"| **{fault.name}**: {fault.sentence}", clause] for fault in FAULTS for clause in fault.clauses
    ]
