"""How soon an idle worker begins a job: all libraries of a broker side by side, by short turns.

A machine may be twice as fast in one minute as in the next, and what is measured here is a fraction of a
millisecond. So all workers are idle at once, and the publishers take turns, each sending a few jobs, one
after the other; in another order each time, since what one leaves behind to be done costs whoever is next.
"""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from random import Random

from ..contender import Contender, Running, running
from ..results import Results

TURNS = 40
"""How often each is asked in a round, at scale 1."""
JOBS = 5
"""How many jobs it sends in a turn."""
SLOW_MS = 200.0
"""Who takes longer is asked once a round: the others wait meanwhile."""
LIMIT_S = 1.0


@dataclass(slots=True)
class Waiting:
    """One whose worker is idle."""

    contender: Contender
    running: Running
    published: int
    """All of which have begun."""
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
                and (waiting := made_wait(results, stack, one, urls[broker], scale)) is not None
            ]
            for number in range(rounds):
                for turn in range(max(2, int(TURNS * scale))):
                    order.shuffle(idle)
                    idle = [one for one in idle if went_well(results, one, turn)]
                for one in idle:
                    note(results, one)
                print(f"latency {broker}, round {number + 1}/{rounds}", file=sys.stderr)


def made_wait(
    results: Results, stack: ExitStack, contender: Contender, url: str, scale: float
) -> Waiting | None:
    """Start one, and have it do what warms it up; None of those that don't wait for jobs, or can't."""
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
    return Waiting(contender, one, jobs)


def went_well(results: Results, one: Waiting, turn: int) -> bool:
    """Have one take its turn, and say whether it is to have another; those that are slow have one a round."""
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


def note(results: Results, one: Waiting) -> None:
    """Add a round's figures."""
    taken, one.taken = sorted(one.taken), []
    broker, library = one.contender.broker, one.running.subject.library
    for name, part in (("latency_p50", 0.5), ("latency_p99", 0.99)):
        value = taken[min(len(taken) - 1, int(len(taken) * part))]
        results.add("field", broker, library, name, "ms", value)
