"""Redis: the port and the application against a bare script, in one process, by turns."""

from functools import partial
from itertools import islice
from statistics import median

from mindtrace.jobs.adapters.redis.keys import QueueKeys
from mindtrace.jobs.adapters.redis.scripts import PUBLISH

from ..bare_drivers.redis import BareRedis
from ..in_process import PAIR, QUEUE, connect, drain_application, drain_port, messages, publish_port, timed
from ..results import Results

JOBS = 20_000
DRAIN_BATCHES = (100, 250, 500)
SLICE = 100
SLICES = 10


def measure(results: Results, urls: dict[str, str], rounds: int, scale: float = 1.0) -> None:
    if "redis" not in urls:
        return
    jobs = messages(int(JOBS * scale))
    bare = BareRedis(urls["redis"])

    def note(library: str, name: str, seconds: float, count: int = len(jobs)) -> None:
        results.add("limit", "redis", library, name, "jobs/s", count / seconds)

    with connect(urls["redis"]) as orchestrator:
        backend = orchestrator.backend
        for _ in range(rounds):
            for batch in DRAIN_BATCHES:
                note("bare", f"publish 100, drain {batch}", timed(partial(bare.publish, jobs)))
                note("bare", f"drain {batch}", timed(partial(bare.drain, batch)))
                note("port", f"publish 100, drain {batch}", timed(partial(publish_port, backend, jobs, 100)))
                note("port", f"drain {batch}", timed(partial(drain_port, backend, batch, len(jobs))))
            publish_port(backend, jobs, 1000)
            note(
                "application",
                "drain adaptive",
                drain_application(orchestrator, None, len(jobs)),
            )
            for library, seconds in one_by_one(bare, orchestrator).items():
                note(library, "publish one by one", seconds, SLICE)
            orchestrator.clean_queue(QUEUE)


def one_by_one(bare: BareRedis, orchestrator: object) -> dict[str, float]:
    """Seconds a slice, in short slices by turns: how long it takes to wake a process changes all the time."""
    singles = iter(messages(2 * SLICE * SLICES))
    sha = bare.server.script_load("return 1")
    names = QueueKeys("default", QUEUE).of(PUBLISH, "0123456789abcdef")

    def bare_ones() -> None:
        for message in islice(singles, SLICE):
            bare.server.evalsha(sha, len(names), *names, "1", 600_000, *message[:2], 0, 0)

    def port_ones() -> None:
        for message in islice(singles, SLICE):
            orchestrator.backend.publish(QUEUE, [message])

    def application_ones() -> None:
        for _ in range(SLICE):
            orchestrator.publish(QUEUE, PAIR)

    steps = {"bare": bare_ones, "port": port_ones, "application": application_ones}
    slices = [[timed(step) for step in steps.values()] for _ in range(SLICES)]
    return dict(zip(steps, map(median, zip(*slices, strict=True)), strict=True))
