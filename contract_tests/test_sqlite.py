"""The contract, on queues in a file."""

import pytest

from mindtrace.jobs.contract import contract_suite

from .harnesses import SQLiteHarness

# The state machine waits for real leases: a minute and a half on a machine that is idle.
pytestmark = pytest.mark.timeout(1800)

globals().update(contract_suite(SQLiteHarness))
