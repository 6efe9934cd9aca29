"""What a backend says of the broker it was pointed at: a line for each thing looked at."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a finding is meant."""

    GOOD = "good"
    DOUBTFUL = "doubtful"
    """It works, but a promise is weaker than one may think."""
    WRONG = "wrong"
    """Jobs will be lost, refused or left undone."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    verdict: Verdict
    subject: str
    """What was looked at: a word or two, the same in every release, to filter by."""
    what: str
    """What was seen. Holds no credentials (SEC-3)."""
    remedy: str = ""
    """What to do about it: a command or a setting; empty where the verdict is good."""


def good(subject: str, what: str) -> Finding:
    """All is well with ``subject``."""
    return Finding(Verdict.GOOD, subject, what)


def doubtful(subject: str, what: str, remedy: str) -> Finding:
    """``subject`` works, but less well than one may think."""
    return Finding(Verdict.DOUBTFUL, subject, what, remedy)


def wrong(subject: str, what: str, remedy: str) -> Finding:
    """``subject`` has to be mended."""
    return Finding(Verdict.WRONG, subject, what, remedy)
