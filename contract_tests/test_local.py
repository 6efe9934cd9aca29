"""The contract, on queues in memory."""

from mindtrace.jobs.contract import contract_suite

from .harnesses import LocalHarness

globals().update(contract_suite(LocalHarness))
