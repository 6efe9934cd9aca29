"""64 publishers of single jobs, as threads and as tasks, beside one alone; and how long an event loop waits.

Each publisher waits for its confirm before it publishes the next job. The loop is watched while tasks
publish, while the broker is away, and while it is a black hole, which takes requests and answers none. Its
longest *pause* is that of a task that sleeps for a millisecond at a time; on a busy machine every loop has
such. Its longest *step* is the CPU time of one callback, which the rest of the machine doesn't change.
Without the rest of the benchmark:

    .venv/bin/python -m benchmarks.scenarios.concurrent [redis|rabbitmq|sqlite|postgresql …]
"""

import asyncio
import gc
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from urllib.parse import urlsplit

from mindtrace.jobs import AsyncOrchestrator, Orchestrator
from mindtrace.jobs.errors import BackendUnavailable

from ..brokers import private_brokers
from ..in_process import PAIR, QUEUE, Idle, connect
from ..results import Results

from brokers.proxy import Disruption, Proxy  # isort: skip - which `..brokers` makes importable

PUBLISHERS = 64
ALONE = {"redis": 20_000, "rabbitmq": 4_000, "sqlite": 2_000, "postgresql": 4_000}
"""How many jobs one alone publishes, at scale 1."""
MORE = 8
"""How many times as many 64 do."""
PAUSE_S = 0.001
WATCHED = ("pause", "step")
OUTAGE_S = 8.0
"""For how long the loop is watched during an outage: longer than a call tries to reach the broker."""
Figures = dict[str, float]


def measure(results: Results, urls: dict[str, str], rounds: int, scale: float = 1.0) -> None:
    """Add jobs a second, and the loop's pauses, of each round."""
    for broker, url in urls.items():
        if broker not in ALONE:
            continue
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                where = f"sqlite:///{folder}/jobs.db" if broker == "sqlite" else url
                alone = max(20, int(ALONE[broker] * scale))
                for name, value in publishing(where, alone).items():
                    unit = "ms" if name in WATCHED else "jobs/s"
                    results.add("concurrent", broker, "this project", name, unit, value)
            if broker != "sqlite":
                for name, value in outages(url, OUTAGE_S * scale).items():
                    results.add("concurrent", broker, "this project", name, "ms", value)


def publishing(url: str, alone: int) -> Figures:
    """Publish with one, with threads and with tasks, one after the other."""
    with connect(url) as orchestrator:
        publish(orchestrator, 10)
        each = max(1, alone * MORE // PUBLISHERS)
        figures = {"one": alone / timed(lambda: publish(orchestrator, alone))}
        figures["threads"] = each * PUBLISHERS / timed(lambda: in_threads(orchestrator, each))
        figures["tasks"] = each * PUBLISHERS / asyncio.run(in_tasks(orchestrator, each))
        figures |= asyncio.run(in_watched_tasks(orchestrator, each))
        orchestrator.clean_queue(QUEUE)
    return figures


def publish(orchestrator: Orchestrator, count: int) -> None:
    for _ in range(count):
        orchestrator.publish(QUEUE, PAIR)


def in_threads(orchestrator: Orchestrator, each: int) -> None:
    threads = [threading.Thread(target=publish, args=(orchestrator, each)) for _ in range(PUBLISHERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def in_tasks(orchestrator: Orchestrator, each: int) -> float:
    """Return the seconds."""

    async def publish() -> None:
        for _ in range(each):
            await jobs.publish(QUEUE, PAIR)

    async with AsyncOrchestrator(orchestrator) as jobs:
        began = time.perf_counter()
        await asyncio.gather(*(publish() for _ in range(PUBLISHERS)))
        return time.perf_counter() - began


async def in_watched_tasks(orchestrator: Orchestrator, each: int) -> Figures:
    """Return what is seen of the loop meanwhile; to watch it costs it some of its speed."""
    async with watching() as watched:
        await in_tasks(orchestrator, each)
    return watched


def outages(url: str, seconds: float) -> Figures:
    """What is seen of the loop while tasks publish to a broker that is away, and to a black hole."""
    server = urlsplit(url)
    figures: Figures = {}
    for name in ("away", "black hole"):
        with ExitStack() as stack:
            proxy = stack.enter_context(Proxy(server.hostname or "localhost", server.port or 0))
            silence = partial(proxy.disrupt_next, b"", Disruption.SILENCE, times=10_000)
            disrupt = stack.close if name == "away" else silence
            watched = asyncio.run(calls(with_port(url, proxy.port), disrupt, seconds))
        figures |= {f"{what}, {name}": value for what, value in watched.items()}
    return figures


async def calls(url: str, disrupt: Callable[[], None], seconds: float) -> Figures:
    """Watch the loop while calls fail: from opening the orchestrator to closing it."""

    async def call(jobs: AsyncOrchestrator) -> None:
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            for make in (lambda: jobs.publish(QUEUE, PAIR), lambda: jobs.counts(QUEUE)):
                with suppress(BackendUnavailable, TimeoutError):
                    async with asyncio.timeout(1.0):
                        await make()

    async with watching() as watched, AsyncOrchestrator(url) as jobs:
        await jobs.register(Idle.schema)
        await asyncio.to_thread(disrupt)
        await asyncio.gather(*(call(jobs) for _ in range(PUBLISHERS)))
    return watched


@asynccontextmanager
async def watching() -> AsyncIterator[Figures]:
    """Yield what is then known of the loop: its longest pause, and its longest step, in milliseconds."""
    watched = dict.fromkeys(WATCHED, 0.0)

    async def sleep() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(PAUSE_S)
            note("pause", time.perf_counter() - began - PAUSE_S)

    def run(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run_handle(handle)
        note("step", time.thread_time() - began)

    def note(what: str, seconds: float) -> None:
        watched[what] = max(watched[what], seconds * 1000)

    gc.collect()
    gc.freeze()  # what was measured before would be collected in some step
    run_handle = asyncio.Handle._run
    sleeping = asyncio.create_task(sleep())
    asyncio.Handle._run = run
    try:
        yield watched
    finally:
        asyncio.Handle._run = run_handle
        gc.unfreeze()
        sleeping.cancel()


def with_port(url: str, port: int) -> str:
    found = urlsplit(url)
    return found._replace(netloc=found.netloc.replace(f":{found.port}", f":{port}")).geturl()


def timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    names = tuple(sys.argv[1:]) or tuple(ALONE)
    with private_brokers(names) as urls:
        results = Results({}, 1)
        measure(results, urls, 1)
    for figure in results.figures:
        one = results.find("concurrent", figure.broker, figure.library, "one")
        times = f"{figure.median / one.median:8.1f} times one" if one and figure.unit == "jobs/s" else ""
        print(f"{figure.broker:9} {figure.name:24} {figure.median:10.1f} {figure.unit:7}{times}")


if __name__ == "__main__":
    main()
