"""The jobs of a soak: short and long ones, with every way to end."""

import random

from mindtrace.jobs import JobInput, JobOutput, JobSchema, RetryPolicy

LEASE_S = 8.0
"""Longer than a busy machine may hold a heartbeat up: nothing excuses a lease that runs out by itself."""
LONG_S = 10.0
"""Beyond the lease, which has to be extended."""
MAX_ATTEMPTS = 3


class SoakInput(JobInput):
    """How a job behaves."""

    work_s: float
    failures: int = 0
    """How many of its attempts fail; all of them make it a dead letter."""
    rejected: bool = False


class SoakOutput(JobOutput):
    """The result of a job."""

    attempt: int


SCHEMA = JobSchema(
    "soak-jobs",
    SoakInput,
    SoakOutput,
    # A soak kills more often than a life does, and none of its jobs is to blame.
    retry=RetryPolicy(max_attempts=MAX_ATTEMPTS, base_delay_s=0.2, max_delay_s=2.0, max_crashes=100),
)


def random_input(rng: random.Random) -> SoakInput:
    """Draw a job at random: most take no time, some a moment, a few longer than the lease; some fail."""
    (longest_s,) = rng.choices((0.004, 0.3, LONG_S), (70, 29, 0.6))
    work_s = LONG_S if longest_s == LONG_S else rng.uniform(0.0, longest_s)
    (failures,) = rng.choices(range(MAX_ATTEMPTS + 1), (92, 4, 1, 1))
    return SoakInput(work_s=work_s, failures=failures, rejected=rng.random() < 0.01)


def random_delay_s(rng: random.Random) -> float:
    """Draw a delay at random; most jobs have none."""
    return rng.uniform(0.1, 5.0) if rng.random() < 0.1 else 0.0
