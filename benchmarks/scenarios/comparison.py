"""Every library at the same work: publishing, draining, starting."""

import sys
import time
from collections.abc import Callable, Sequence

from ..contenders import Contender, Running, running
from ..results import COMPARISON, Results

WARM_UP = 20
IDLE_S = 1.0


def measure(
    results: Results, contenders: Sequence[Contender], urls: dict[str, str], rounds: int, scale: float
) -> None:
    """By turns: a round of all, then the next."""
    for number in range(rounds):
        for contender in contenders:
            began = time.monotonic()
            run_round(results, contender, urls[contender.broker], number, scale)
            took = time.monotonic() - began
            print(f"round {number + 1}/{rounds} {contender.name} {took:.1f} s", file=sys.stderr)


def run_round(results: Results, contender: Contender, url: str, number: int, scale: float) -> None:
    """Measure one round; where a peer fails, that is noted, and it gets another try."""
    queue = f"bench-{contender.name}-{number}".replace(" ", "-").replace("_", "-")
    try:
        measure_round(results, contender, url, queue, scale)
    except RuntimeError as error:
        if contender.environment is None:  # our own may not fail
            raise
        results.failures.append(f"{contender.name}, round {number + 1}: {str(error).splitlines()[0]}")
        print(results.failures[-1], file=sys.stderr)
        measure_round(results, contender, url, f"{queue}-again", scale)


def measure_round(results: Results, contender: Contender, url: str, queue: str, scale: float) -> None:
    """Add the figures of a whole round, or none."""
    figures: list[tuple[str, str, float]] = []

    def note(name: str, unit: str, value: float) -> None:
        figures.append((name, unit, value))

    with running(contender, url, queue) as one:
        results.introduce(one.subject)
        run_steps(contender, one, scale, note)
    for name, unit, value in figures:
        results.add(COMPARISON, contender.broker, one.subject.library, name, unit, value)


def run_steps(
    contender: Contender, one: Running, scale: float, note: Callable[[str, str, float], None]
) -> None:
    """Publish everything, start a worker at it, and leave it idle."""

    def sized(count: int) -> int:
        return max(10, int(count * scale)) if count else 0

    one.ask("publish", kind="no_op", count=WARM_UP)
    published = WARM_UP
    singles = sized(contender.singles)
    note("publish", "jobs/s", singles / one.ask("publish", kind="no_op", count=singles))
    published += singles
    if one.traits["has_batches"]:
        batch = sized(contender.batch)
        note("publish_batch", "jobs/s", batch / one.ask("publish_batch", kind="no_op", count=batch))
        published += batch
    if (missing := sized(contender.drained) - published) > 0:
        one.ask("publish", kind="no_op", count=missing)
        published += missing
    others = [kind for kind in one.traits["kinds"] if kind != "no_op"]
    for kind in others:
        one.ask("publish", kind=kind, count=sized(contender.others))

    started = one.start_worker()
    moments = one.wait_for("no_op", published)
    note("start", "s", moments[0] - started)
    note("drain", "jobs/s", rate(moments))
    for kind in others:
        note(f"drain_{kind}", "jobs/s", rate(one.wait_for(kind, sized(contender.others))))
    if one.traits["wakes"] and not one.traits["in_process"]:
        time.sleep(0.3)
        note("memory", "MiB", one.worker_memory_mib)
        note("idle_cpu", "%", one.worker_cpu(IDLE_S) * 100)


def rate(moments: list[float]) -> float:
    """Jobs a second, from the beginning of the first to the beginning of the last."""
    return (len(moments) - 1) / (moments[-1] - moments[0])
