"""Findings of a diagnosis: one for each thing that a backend checked about its broker."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How serious a finding is."""

    GOOD = "good"
    DOUBTFUL = "doubtful"
    """It works, but a guarantee is weaker than the user may expect."""
    WRONG = "wrong"
    """Jobs will be lost, refused or never run."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked."""

    verdict: Verdict
    subject: str
    """What was checked: a word or two, the same in every release, to filter by."""
    what: str
    """What was found. Contains no credentials (SEC-3)."""
    remedy: str = ""
    """How to fix it: a command or a setting; empty if the verdict is good."""


def good(subject: str, what: str) -> Finding:
    """Return a finding that nothing is wrong with ``subject``."""
    return Finding(Verdict.GOOD, subject, what)


def doubtful(subject: str, what: str, remedy: str) -> Finding:
    """Return a finding that ``subject`` works, but less well than the user may expect."""
    return Finding(Verdict.DOUBTFUL, subject, what, remedy)


def wrong(subject: str, what: str, remedy: str) -> Finding:
    """Return a finding that ``subject`` must be fixed."""
    return Finding(Verdict.WRONG, subject, what, remedy)
