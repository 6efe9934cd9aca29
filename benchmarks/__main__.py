"""The command: ``python -m benchmarks run``, then ``python -m benchmarks report``."""

import argparse
import sys
from pathlib import Path

from . import machine, report
from .brokers import BROKERS, private_brokers
from .contenders import CONTENDERS, Contender
from .results import Results
from .scenarios import (
    backlog,
    comparison,
    concurrent,
    held_snapshot,
    latency,
    limits,
    limits_by_key,
    many_waiting,
    memory,
    rabbitmq_limit,
    redis_limit,
    web,
)

RESULTS = Path("build/bench/results")


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure, and write the results")
    run.add_argument("--broker", action="append", choices=BROKERS, help="this one alone; may be given again")
    run.add_argument(
        "--peer", action="append", help="this one alone, as its module is named; may be given again"
    )
    run.add_argument("--rounds", type=int, default=1)
    run.add_argument("--scale", type=float, default=0.5, help="how many jobs, 1 being all")
    run.add_argument("--backlogs", type=int, nargs="+", default=[1_000, 10_000])
    run.add_argument("--held", type=float, default=0.0, help="minutes to hold a snapshot, 0 for not at all")
    run.add_argument("--out", type=Path, default=RESULTS / "results.json")
    tell = commands.add_parser("report", help="write the page of results")
    tell.add_argument("results", type=Path, nargs="*", default=[RESULTS / "results.json"])
    tell.add_argument("--page", type=Path, default=Path("docs/benchmarks.md"))
    options = parser.parse_args()
    if options.command == "report":
        report.write([Results.read(path) for path in options.results], options.page)
        return 0
    names = tuple(options.broker or BROKERS)
    contenders = choose(names, options.peer)
    with private_brokers(names) as urls:
        results = Results(machine.describe(urls), options.rounds)
        try:
            comparison.measure(results, contenders, urls, options.rounds, options.scale)
            latency.measure(results, contenders, urls, options.rounds, options.scale)
            redis_limit.measure(results, urls, options.rounds, options.scale)
            rabbitmq_limit.measure(results, urls, options.rounds, options.scale)
            concurrent.measure(results, urls, options.rounds, options.scale)
            limits.measure(results, urls, options.rounds, options.scale)
            limits_by_key.measure(results, urls, options.rounds, options.scale)
            many_waiting.measure(results, urls, options.rounds, options.scale)
            web.measure(results, web.choose(names, options.peer), options.rounds, options.scale)
            memory.measure(results, contenders, urls, options.scale)
            backlog.measure(results, urls, tuple(options.backlogs), options.rounds)
            if options.held:
                held_snapshot.measure(results, contenders, options.held)
        finally:
            results.write(options.out)
    for figure in results.figures:
        print(f"{figure.broker:9} {figure.library:20} {figure.name:14} {figure.median:12,.2f} {figure.unit}")
    return 0


def choose(brokers: tuple[str, ...], peers: list[str] | None) -> list[Contender]:
    """Return the contenders that take part; print those that aren't installed."""
    asked = [one for one in CONTENDERS if one.broker in brokers and (peers is None or one.peer in peers)]
    for one in asked:
        if not one.installed:
            print(f"{one.peer} on {one.broker}: left out, it has no environment", file=sys.stderr)
    return [one for one in asked if one.installed]


if __name__ == "__main__":
    sys.exit(main())
