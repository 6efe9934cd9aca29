"""Every library at the same work: publishing, draining, starting, waiting."""

import sys
import time
from collections.abc import Sequence

from ..contender import Contender, Running, running
from ..results import Results

WARM_UP = 20
LATENCIES = 100
LATENCY_LIMIT_S = 6.0
IDLE_S = 1.0


def measure(
    results: Results, field: Sequence[Contender], urls: dict[str, str], rounds: int, scale: float
) -> None:
    """By turns: a round of all, then the next."""
    for number in range(rounds):
        for contender in field:
            began = time.monotonic()
            queue = f"bench-{contender.peer.replace('_', '-')}-{number}"
            with running(contender, urls[contender.broker], queue) as one:
                one_round(results, contender, one, scale)
            took = time.monotonic() - began
            who = f"{contender.broker} {contender.peer}"
            print(f"round {number + 1}/{rounds} {who} {took:.1f} s", file=sys.stderr)


def one_round(results: Results, contender: Contender, one: Running, scale: float) -> None:
    """Publish everything, start a worker at it, and leave it idle."""

    def note(name: str, unit: str, value: float) -> None:
        results.add("field", contender.broker, one.subject.library, name, unit, value)

    def sized(count: int) -> int:
        return max(10, int(count * scale)) if count else 0

    results.introduce(one.subject)
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
    if one.traits["wakes"]:
        time.sleep(0.3)
        if not one.traits["in_process"]:
            note("memory", "MiB", one.worker_memory_mib)
            note("idle_cpu", "%", one.worker_cpu(IDLE_S) * 100)
        latencies = sorted(
            one.ask(
                "latency", before=published, count=max(10, int(LATENCIES * scale)), limit_s=LATENCY_LIMIT_S
            )
        )
        note("latency_p50", "ms", latencies[len(latencies) // 2])
        note("latency_p99", "ms", latencies[min(len(latencies) - 1, int(len(latencies) * 0.99))])


def rate(moments: list[float]) -> float:
    """Jobs a second, from the beginning of the first to the beginning of the last."""
    return (len(moments) - 1) / (moments[-1] - moments[0])
