"""A web service that publishes: the same with this project's ``AsyncOrchestrator``, taskiq, arq and SAQ.

It is FastAPI's, in one process of uvicorn with uvloop and httptools, and opens its library once. What it has
imported is exempt from garbage collection (``gc.freeze``), whose pauses would hide all else. 32 connections
of another process are kept alive and post job after job; meanwhile others ping, a route that doesn't publish.
The pings go on while the broker is away: the scenario has brokers of its own, and kills them. A post that
fails is answered with 503 and comes again a tenth of a second later. No worker takes the jobs. Without the
rest of the benchmark, after ``make bench`` has made the environments:

    .venv/bin/python -m benchmarks.scenarios.web [--broker redis] [--rounds 5] [--scale 1] [--out FILE]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from .. import machine
from ..brokers import SERVERS
from ..contenders import python_of, variables
from ..process_usage import cpu_s
from ..results import Results

from brokers.private_server import PrivateServer  # isort: skip - which `..brokers` makes importable

POSTING = 32
PINGING = 8
SECONDS = 4.0
"""How long each is measured, at scale 1."""
OUTAGE_S = 8.0
"""How long with the broker away, at any scale: longer than a call of ours tries to reach it."""
BEFORE_S = 0.5
"""How long requests are sent before they are measured, or before the broker is killed."""
POST, PING, PINGS, SERVICE = "POST /jobs", "GET /ping", "pings", "service"
"""Names of figures, the first three as the client gives them."""


class Service(NamedTuple):
    """The service with one library on one broker."""

    broker: str
    library: str
    peer: str
    environment: str

    @property
    def is_installed(self) -> bool:
        return Path(python_of(self.environment)).exists()


SERVICES = (
    Service("redis", "this project", "ours_async", "ours"),
    Service("redis", "taskiq", "taskiq", "taskiq"),
    Service("redis", "arq", "arq", "arq"),
    Service("redis", "SAQ", "saq", "saq"),
    Service("rabbitmq", "this project", "ours_async", "ours"),
    Service("rabbitmq", "taskiq", "taskiq", "taskiq"),
)


def measure(results: Results, services: Sequence[Service], rounds: int, scale: float) -> None:
    """By turns: a round of all on a broker, then the next."""
    for broker, kind in SERVERS.items():
        for number in range(rounds):
            for service in [one for one in services if one.broker == broker]:
                with tempfile.TemporaryDirectory(prefix="bench-web-") as folder:
                    run_round(results, service, kind(Path(folder)), scale)
                print(f"web {broker} {service.library}, round {number + 1}/{rounds}", file=sys.stderr)


def choose(brokers: Sequence[str], peers: Sequence[str] | None = None) -> list[Service]:
    """Return the services that take part; print those that aren't installed."""
    asked = [one for one in SERVICES if one.broker in brokers and (peers is None or one.peer in peers)]
    for one in asked:
        if not one.is_installed:
            print(f"{one.library} on {one.broker}: no web service, it has no environment", file=sys.stderr)
    return [one for one in asked if one.is_installed]


def run_round(results: Results, service: Service, server: PrivateServer, scale: float) -> None:
    """Add the figures of a round; those of a peer that fails are left out, and that is noted."""
    server.start()
    try:
        with running(service, server) as web:
            figures = run_steps(web, server, scale)
    except RuntimeError as error:
        if service.peer == "ours_async":  # our own may not fail
            raise
        told = str(error).splitlines()[-1]
        results.failures.append(f"{service.library} on {service.broker}, web service, left out: {told}")
        print(results.failures[-1], file=sys.stderr)
        return
    finally:
        server.kill()
    results.machine["web service"] = ", ".join(f"{name} {number}" for name, number in web.versions.items())
    for name, (value, unit) in figures.items():
        results.add("web", service.broker, service.library, name, unit, value)


def run_steps(web: "Web", server: PrivateServer, scale: float) -> dict[str, tuple[float, str]]:
    """Ping without posts, post, do both, and do both while the broker is killed."""
    seconds = SECONDS * scale
    idle = web.load(seconds / 2, {PING: POSTING})[PING]
    alone = web.load(seconds, {POST: POSTING})
    both = web.load(seconds, {POST: POSTING}, PINGING)
    for name, one in ((PING, idle), (POST, alone[POST]), (POST, both[POST])):
        if one["failed"] or not one["rate"]:
            raise RuntimeError(f"{name}: {one}")
    away = web.load(OUTAGE_S, {POST: POSTING}, PINGING, meanwhile=server.kill)
    return {
        "ceiling": (idle["rate"], "requests/s"),
        "rate": (alone[POST]["rate"], "requests/s"),
        "p50": (alone[POST]["p50"], "ms"),
        "p99": (alone[POST]["p99"], "ms"),
        "cpu": (alone[SERVICE]["cpu"] * 1000 / alone[POST]["rate"], "ms"),
        "ping p99": (both[PINGS]["p99"], "ms"),
        "ping p99, away": (away[PINGS]["p99"], "ms"),
        "longest ping, away": (away[PINGS]["longest"], "ms"),
    }


class Web:
    """A running service, and its client."""

    def __init__(
        self, service: subprocess.Popen[str], client: subprocess.Popen[str], versions: dict[str, str]
    ) -> None:
        self._service = service
        self._client = client
        self.versions = versions

    def load(
        self,
        seconds: float,
        busy: dict[str, int],
        pinging: int = 0,
        *,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> dict[str, dict[str, float]]:
        """Have the client send requests, as of :func:`benchmarks.web_load.run`."""
        order = {"busy": busy, "pinging": pinging, "before_s": BEFORE_S, "seconds": seconds}
        self._client.stdin.write(json.dumps(order) + "\n")
        self._client.stdin.flush()
        time.sleep(BEFORE_S)
        used_s = cpu_s(self._service.pid)
        meanwhile()
        figures: dict[str, dict[str, float]] = answer_of(self._client)
        figures[SERVICE] = {"cpu": (cpu_s(self._service.pid) - used_s) / seconds}
        return figures


@contextmanager
def running(service: Service, server: PrivateServer) -> Iterator[Web]:
    """Run a service and its client, and kill them."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
        log = stack.enter_context(Path(folder, "log").open("w+", encoding="utf-8"))
        place = {"BENCH_BROKER": service.broker, "BENCH_URL": server.address.url, "BENCH_QUEUE": "bench-web"}
        environment = variables(Path(folder), **place)

        def start(python: str, *words: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [python, "-m", *words],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        try:
            web = start(python_of(service.environment), "benchmarks.web_service", service.peer)
            about = answer_of(web)
            client = start(sys.executable, "benchmarks.web_load", str(about["port"]))
            yield Web(web, client, about["versions"])
        except EOFError as error:
            raise RuntimeError(Path(log.name).read_text("utf-8")[-3000:]) from error


def answer_of(process: subprocess.Popen[str]) -> Any:
    line = process.stdout.readline()
    if not line:
        raise EOFError
    return json.loads(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--broker", choices=SERVERS, help="this one alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--out", type=Path, help="where the results are written, for the report")
    options = parser.parse_args()
    results = Results(machine.describe({}), options.rounds)
    services = choose([options.broker] if options.broker else list(SERVERS))
    measure(results, services, options.rounds, options.scale)
    for figure in results.figures:
        spread = f"{min(figure.values):,.1f} to {max(figure.values):,.1f}"
        name = f"{figure.broker:9} {figure.library:13} {figure.name:19}"
        print(f"{name} {figure.median:10,.1f} {figure.unit:10} ({spread})")
    if options.out:
        results.write(options.out)


if __name__ == "__main__":
    main()
