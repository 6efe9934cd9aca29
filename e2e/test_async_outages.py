"""Coroutines and a broker that answers nothing any more: calls end in time, and later ones are right."""

import asyncio
import secrets
from collections.abc import Coroutine
from typing import Any

import pytest

from brokers.proxy import Disruption, Proxy
from brokers.redis_server import Address
from conditions import LIMIT_S
from mindtrace.jobs import AsyncOrchestrator, JobInput, JobSchema, RedisClient
from mindtrace.jobs.errors import BackendUnavailable

SOON_S = 1.5
"""The retry timeout while no answer comes, and how long a try waits for one."""


class Number(JobInput):
    n: int


SCHEMA = JobSchema("numbers", Number)


async def hurried(call: Coroutine[Any, Any, Any]) -> Any:
    async with asyncio.timeout(0.2):
        return await call


def test_timeouts_in_a_black_hole_harm_no_later_call(redis_address: Address) -> None:
    """Whatever was cancelled: once the broker answers again, each publish has its own answer."""

    async def main(client: RedisClient, proxy: Proxy) -> None:
        async with asyncio.timeout(LIMIT_S), AsyncOrchestrator(client) as jobs:
            client._redis.retry_timeout_s = LIMIT_S
            await jobs.register(SCHEMA)
            client._redis.retry_timeout_s = SOON_S
            proxy.disrupt_next(b"", Disruption.SILENCE, times=1000)
            calls = [
                *(jobs.publish("numbers", {"n": n}) for n in range(20)),
                *(jobs.counts("numbers") for _ in range(10)),
                *(jobs.result("numbers", f"id-{n}", timeout_s=30) for n in range(20)),
                jobs.dead_letters("numbers"),
            ]
            got = await asyncio.gather(*map(hurried, calls), return_exceptions=True)
            assert {type(each) for each in got} == {TimeoutError}
            with pytest.raises(BackendUnavailable):
                await jobs.publish("numbers", {"n": 20})

            proxy.stop_disrupting()
            client._redis.retry_timeout_s = LIMIT_S
            ids = await asyncio.gather(*(jobs.publish("numbers", {"n": n}) for n in range(100, 200)))
            received = {}
            while (job := await jobs.receive_message(SCHEMA)) is not None:
                received[job.id] = job.payload.n
            assert [received[id_] for id_ in ids] == list(range(100, 200))
            assert set(received.values()) - set(range(100, 200)) <= set(range(21))
            await jobs.delete_queue("numbers")

    with (
        Proxy(redis_address.host, redis_address.port) as proxy,
        RedisClient(
            "127.0.0.1",
            proxy.port,
            redis_address.db,
            password=redis_address.password,
            namespace=f"test-{secrets.token_hex(4)}",
            sweep_s=0.5,
            retry_timeout_s=SOON_S,
        ) as client,
    ):
        asyncio.run(main(client, proxy))
