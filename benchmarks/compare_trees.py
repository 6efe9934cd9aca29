"""This tree beside another, such as that of the commit before a change: which is faster, and by how much.

A machine may be half as fast in the next second, and a garbage collection falls into one measure or the
other. So both trees are asked by turns of some milliseconds, in an order by chance, and each turn of one is
compared with that of the other. The other tree needs its environment:

    git clone . build/before && git -C build/before checkout REVISION && make -C build/before .venv/.synced
    .venv/bin/python -m benchmarks.compare_trees build/before [--broker redis …] [--turns 200]

Each line gives what one job takes with either, and the *speed*: that of the other tree being 1.
"""

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import median

from .brokers import BROKERS, private_brokers
from .contenders import CONTENDERS, Contender, Running, python_of, running
from .scenarios.latency import JOBS, LIMIT_S

BATCH = 1_000
"""How many jobs are published and drained in a turn."""
SINGLES = 200
"""How many are published one by one; few would measure the first calls after a pause."""
WARM_UP = 10
"""How many turns aren't counted."""


class Tree:
    """One tree on one broker: a process that publishes and drains, and an idle worker."""

    def __init__(self, stack: ExitStack, contender: Contender, url: str, name: str) -> None:
        self._drains = stack.enter_context(running(contender, url, f"beside-{name}-drained"))
        self._waits = stack.enter_context(running(contender, url, f"beside-{name}-awaited"))
        self._drained = self._waited = 0
        self._waits.start_worker()

    def turn(self) -> dict[str, float]:
        """Return what one job takes, in microseconds, in each way in which it is measured."""
        drains = self._drains
        batch = drains.ask("publish_batch", kind="no_op", count=BATCH) / BATCH
        drain = self._drain(drains, BATCH) / (BATCH - 1)
        publish = drains.ask("publish", kind="no_op", count=SINGLES) / SINGLES
        self._drain(drains, SINGLES)
        taken = self._waits.ask("latency", before=self._waited, count=JOBS, limit_s=LIMIT_S)
        self._waited += len(taken)
        return {
            "publish": publish * 1e6,
            "publish_batch": batch * 1e6,
            "drain": drain * 1e6,
            "latency": median(taken) * 1e3,
        }

    def _drain(self, process: Running, count: int) -> float:
        seconds: float = process.ask("drain", before=self._drained, count=count)
        self._drained += count
        return seconds


def compare(broker: str, url: str, other: str, turns: int) -> dict[str, tuple[float, float, float]]:
    """Return of each measure what it is here, what it is in the other tree, and the speed.

    Args:
        broker: The broker.
        url: Where it is.
        other: The other tree's environment.
        turns: How many turns to count.
    """
    ours = next(one for one in CONTENDERS if one.broker == broker and one.peer == "ours")
    with ExitStack() as stack:
        trees = [
            Tree(stack, replace(ours, environment=environment), own(url, name), name)
            for name, environment in (("here", None), ("there", other))
        ]
        order = Random(0)
        measured = [take_turns([tree.turn for tree in trees], order) for _ in range(WARM_UP + turns)]
    counted = measured[WARM_UP:]
    return {
        name: (
            median(here[name] for here, _ in counted),
            median(there[name] for _, there in counted),
            median(there[name] / here[name] for here, there in counted),
        )
        for name in counted[0][0]
    }


def own(url: str, name: str) -> str:
    """Return the URL of a tree's own tables on PostgreSQL, which may be unlike the other's."""
    return f"{url}?namespace={name}" if url.startswith("postgresql:") else url


def take_turns(
    turns: Sequence[Callable[[], dict[str, float]]], order: Random
) -> tuple[dict[str, float], dict[str, float]]:
    """Give both a turn, in an order by chance, and return what they were, this tree's first."""
    first = order.randrange(2)
    measured = {first: turns[first]()}
    measured[1 - first] = turns[1 - first]()
    return measured[0], measured[1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.compare_trees", description=__doc__.splitlines()[0])
    parser.add_argument("tree", type=Path, help="the other tree, with its environment in .venv")
    parser.add_argument("--broker", action="append", choices=BROKERS, help="this one; may be given again")
    parser.add_argument("--turns", type=int, default=200)
    options = parser.parse_args()
    environment = str(options.tree.absolute() / ".venv")
    if not Path(python_of(environment)).exists():
        parser.error(f"{options.tree} has no environment: run `make -C {options.tree} .venv/.synced` first")
    names = tuple(options.broker or BROKERS)
    with private_brokers(names) as urls:
        for broker, url in urls.items():
            for name, (here, there, speed) in compare(broker, url, environment, options.turns).items():
                print(f"{broker:10} {name:13} {here:9.1f} µs {there:9.1f} µs   speed {speed:.3f}", flush=True)


if __name__ == "__main__":
    main()
