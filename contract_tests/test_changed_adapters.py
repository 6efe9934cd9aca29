"""Adapters with faults in their statements and scripts: the suite finds each by a clause that it breaks."""

from contextlib import closing

import pytest

from brokers.redis_server import Address
from mindtrace.jobs.contract import CLAUSES, Harness
from mindtrace.jobs.contract.check_context import CheckContext
from mindtrace.jobs.contract.profiles import PROFILES
from mindtrace.jobs.contract.registry import all_checks
from mindtrace.jobs.contract.run import Result, run_check

from . import redis_coordination_faults, redis_faults, sqlite_faults
from .changed_adapters import TextFault, changed_scripts, changed_statements, unwoken_files
from .harnesses import SQLiteHarness
from .test_redis import RedisHarness

pytestmark = pytest.mark.long

REDIS_FAULTS = (*redis_faults.FAULTS, *redis_coordination_faults.FAULTS)


class ImpatientSQLiteHarness(SQLiteHarness):
    timeout_s = 4.0


class ImpatientRedisHarness(RedisHarness):
    timeout_s = 4.0


def found(harness: Harness, fault: TextFault) -> Result | None:
    """What finds the fault by a clause that it breaks; the checks of the largest runs are tried first."""
    with closing(harness):
        context = CheckContext(harness, PROFILES["quick"])
        for check in reversed(all_checks()):
            if not set(check.clauses).isdisjoint(fault.clauses):
                result, _ = run_check(context, check)
                if result.broken in fault.clauses:
                    return result
    return None


@pytest.mark.parametrize("fault", sqlite_faults.FAULTS, ids=lambda fault: fault.name)
def test_a_fault_in_a_statement_is_found(fault: TextFault) -> None:
    with changed_statements(fault) as changed:
        result = found(ImpatientSQLiteHarness(), fault)

    assert changed, f"{fault.name}: no statement has {fault.old}"
    assert result is not None, f"{fault.name}: {fault.sentence} The checks of {fault.clauses} don't find it"


def test_a_file_that_wakes_nobody_is_found() -> None:
    with unwoken_files():
        result = found(ImpatientSQLiteHarness(), sqlite_faults.NOBODY_IS_WOKEN)

    assert result is not None


@pytest.mark.parametrize("fault", REDIS_FAULTS, ids=lambda fault: fault.name)
def test_a_fault_in_a_script_is_found(fault: TextFault, redis_address: Address) -> None:
    ImpatientRedisHarness.address = redis_address
    with changed_scripts(fault) as changed:
        result = found(ImpatientRedisHarness(), fault)

    assert changed, f"{fault.name}: no script has {fault.old}"
    assert result is not None, f"{fault.name}: {fault.sentence} The checks of {fault.clauses} don't find it"


def test_every_changed_text_names_clauses_of_the_contract() -> None:
    faults = (*sqlite_faults.FAULTS, sqlite_faults.NOBODY_IS_WOKEN, *REDIS_FAULTS)

    assert {clause for fault in faults for clause in fault.clauses} <= set(CLAUSES)
