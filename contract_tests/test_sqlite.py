"""The contract, on queues in a file."""

from mindtrace.jobs.contract import contract_suite

from .harnesses import SQLiteHarness

globals().update(contract_suite(SQLiteHarness))
