"""The contract, on a real Redis."""

import os
from contextlib import suppress

from redis import Redis, ResponseError

from mindtrace.jobs import ConsumerBackend, OrchestratorBackend
from mindtrace.jobs.adapters.redis import RedisClient
from mindtrace.jobs.contract import Harness, contract_suite

URL = os.environ.get("MINDTRACE_JOBS_TEST_REDIS", "redis://localhost:6379/0")


class RedisHarness(Harness):
    lease_s = 0.3

    def __init__(self) -> None:
        self.admin = Redis.from_url(URL)

    def make(self, namespace: str) -> OrchestratorBackend:
        return RedisClient(namespace=namespace, sweep_s=0.5)

    def crash(self, consumer: ConsumerBackend) -> None:
        """Nothing to do: a consumer that is never heard of again is dead."""

    def sever(self, backend: OrchestratorBackend) -> None:
        for client in self.admin.client_list():
            if client["name"] == backend._client_name:
                with suppress(ResponseError):  # it is gone already
                    self.admin.client_kill_filter(_id=client["id"])

    def destroy(self, namespace: str) -> None:
        keys = list(self.admin.scan_iter(f"mtj:{{{namespace}/*", count=1000))
        if keys:
            self.admin.unlink(*keys)


globals().update(contract_suite(RedisHarness))
