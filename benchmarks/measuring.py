"""What every comparison measures in the same way: one job, one idle consumer, and how long things take."""

import threading
import time
from collections.abc import Callable

from mindtrace.jobs import Consumer, Job, JobInput, JobOutput, JobSchema, Orchestrator, job_from_schema
from mindtrace.jobs.domain.envelope import encode
from mindtrace.jobs.ports import Message


class Pair(JobInput):
    x: float
    y: float


class Nothing(JobOutput):
    pass


class Idle(Consumer):
    def run(self, job: Job[Pair]) -> None:
        pass


SCHEMA = JobSchema("bench", Pair, Nothing)
PAIR = Pair(x=1.5, y=2.5)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def messages(count: int) -> list[Message]:
    jobs = [job_from_schema(SCHEMA, PAIR) for _ in range(count)]
    return [Message(job.id, encode(job, SCHEMA)) for job in jobs]


def drain_application(orchestrator: Orchestrator, prefetch: int | None, count: int) -> None:
    with Idle("bench") as consumer:
        consumer.connect(orchestrator, prefetch=prefetch)
        if consumer.consume(count) != count:
            raise RuntimeError("not every job came")


def latency_ms(orchestrator: Orchestrator, count: int = 200) -> list[float]:
    """From the publish call to the handler's start on an idle worker, in this process."""
    started: list[float] = []

    class Stamp(Consumer):
        def run(self, job: Job[Pair]) -> None:
            started.append(time.perf_counter())

    latencies = []
    with Stamp("bench") as consumer:
        consumer.connect(orchestrator)
        working = threading.Thread(target=lambda: consumer.consume(count, block=True))
        working.start()
        for number in range(count):
            time.sleep(0.01)
            sent = time.perf_counter()
            orchestrator.publish("bench", PAIR)
            while len(started) <= number:
                time.sleep(0.0001)
            latencies.append((started[-1] - sent) * 1000)
        working.join()
    return sorted(latencies)
