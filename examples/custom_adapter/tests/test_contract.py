"""The contract, on a spool folder."""

import shutil
import tempfile
from pathlib import Path

from mindtrace_jobs_spool import SpoolClient

from mindtrace.jobs import ConsumerBackend, OrchestratorBackend
from mindtrace.jobs.contract import Harness, contract_suite


class SpoolHarness(Harness):
    lease_s = 0.3
    secrets = None  # a folder has no password

    def __init__(self) -> None:
        self.spool = Path(tempfile.mkdtemp())

    def make(self, namespace: str) -> OrchestratorBackend:
        return SpoolClient(self.spool, namespace=namespace)

    def crash(self, consumer: ConsumerBackend) -> None:
        """The suite stops using it, so its leases end by themselves. test_processes.py truly kills some."""

    def sever(self, backend: OrchestratorBackend) -> None:
        """Nothing to do: there is no connection."""

    def destroy(self, namespace: str) -> None:
        shutil.rmtree(self.spool / namespace, ignore_errors=True)

    def close(self) -> None:
        shutil.rmtree(self.spool)

    def redelivery_s(self, lease_s: float) -> float:
        return lease_s + 0.05  # a lease ends by the clock, and a waiting receiver takes the job at once


globals().update(contract_suite(SpoolHarness))
