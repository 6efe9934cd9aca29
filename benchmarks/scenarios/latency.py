"""How soon an idle worker begins a job: all libraries of a broker side by side, by short turns.

A machine may be twice as fast in one minute as in the next, and what is measured here is a fraction of a
millisecond. So all workers are idle at once, and the publishers take turns, each sending a few jobs, one
after the other; in another order each time, since one may leave work that costs the next.
"""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from random import Random

from ..contenders import Contender, Running, running
from ..results import COMPARISON, Results

TURNS = 40
"""How often each is asked in a round, at scale 1."""
JOBS = 5
"""How many jobs it sends in a turn."""
SLOW_MS = 200.0
"""Who takes longer is asked once a round: the others wait meanwhile."""
LIMIT_S = 1.0


@dataclass(slots=True)
class IdleWorker:
    """A contender whose worker is idle."""

    contender: Contender
    running: Running
    published: int
    """How many jobs were published; all have begun."""
    taken: list[float] = field(default_factory=list)
    """What its jobs took in this round, in milliseconds."""

    def take_turn(self) -> None:
        """Send a few jobs, each once the one before has begun."""
        taken = self.running.ask("latency", before=self.published, count=JOBS, limit_s=LIMIT_S)
        self.published += len(taken)
        self.taken += taken


def measure(
    results: Results, contenders: Sequence[Contender], urls: dict[str, str], rounds: int, scale: float
) -> None:
    """Add, of each round, what half of the jobs took at most, and what ninety-nine of a hundred did."""
    order = Random(0)
    for broker in dict.fromkeys(one.broker for one in contenders):
        with ExitStack() as stack:
            idle = [
                waiting
                for one in contenders
                if one.broker == broker
                and (waiting := start_idle(results, stack, one, urls[broker], scale)) is not None
            ]
            for number in range(rounds):
                for turn in range(max(2, int(TURNS * scale))):
                    order.shuffle(idle)
                    idle = [one for one in idle if take_turn(results, one, turn)]
                for one in idle:
                    note(results, one)
                print(f"latency {broker}, round {number + 1}/{rounds}", file=sys.stderr)


def start_idle(
    results: Results, stack: ExitStack, contender: Contender, url: str, scale: float
) -> IdleWorker | None:
    """Start a contender and warm it up. None if it doesn't wait for jobs, or fails."""
    queue = f"bench-latency-{contender.name}".replace(" ", "-").replace("_", "-")
    jobs = max(20, int(contender.singles * scale))
    try:
        one = stack.enter_context(running(contender, url, queue))
        if not one.traits["wakes"]:
            return None
        results.introduce(one.subject)
        one.ask("publish", kind="no_op", count=jobs)
        one.start_worker()
        one.wait_for("no_op", jobs)
    except RuntimeError as error:
        leave_out(results, contender, error)
        return None
    return IdleWorker(contender, one, jobs)


def take_turn(results: Results, one: IdleWorker, turn: int) -> bool:
    """Give a contender its turn, and return whether it may have another. Slow ones get one a round."""
    if turn and min(one.taken) > SLOW_MS:
        return True
    try:
        one.take_turn()
    except RuntimeError as error:
        leave_out(results, one.contender, error)
        return False
    return True


def leave_out(results: Results, contender: Contender, error: RuntimeError) -> None:
    if contender.environment is None:  # our own may not fail
        raise error
    results.failures.append(f"{contender.name}, idle latency, left out: {str(error).splitlines()[0]}")
    print(results.failures[-1], file=sys.stderr)


def note(results: Results, one: IdleWorker) -> None:
    """Add a round's figures."""
    taken, one.taken = sorted(one.taken), []
    broker, library = one.contender.broker, one.running.subject.library
    for name, part in (("latency_p50", 0.5), ("latency_p99", 0.99)):
        value = taken[min(len(taken) - 1, int(len(taken) * part))]
        results.add(COMPARISON, broker, library, name, "ms", value)
