"""The jobs that a consumer holds until its limits let them start."""

import threading
from collections.abc import Iterable, Mapping

from ...ports import SettleOutcome
from .held_job import HeldJob


class HeldJobs:
    """Jobs by their receipts, in the order in which they came. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, HeldJob] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def all(self) -> list[HeldJob]:
        """Return those that are held now."""
        with self._lock:
            return list(self._jobs.values())

    def receipts(self) -> list[str]:
        """Return their receipts."""
        with self._lock:
            return list(self._jobs)

    def among(self, jobs: Iterable[HeldJob]) -> list[HeldJob]:
        """Return those of these jobs that are held now."""
        receipts = set(self.receipts())
        return [job for job in jobs if job.receipt in receipts]

    def add(self, jobs: Iterable[HeldJob]) -> None:
        """Hold jobs, behind the others."""
        with self._lock:
            self._jobs.update({job.receipt: job for job in jobs})

    def take(self, receipts: Iterable[str]) -> list[HeldJob]:
        """Hold these no longer; return those that no other thread had taken before."""
        with self._lock:
            found = [self._jobs.pop(receipt, None) for receipt in receipts]
        return [job for job in found if job is not None]

    def note_extended(self, outcomes: Mapping[str, SettleOutcome], now: float) -> list[HeldJob]:
        """Note whose lease was extended; hold the others no longer, and return those to be cancelled."""
        with self._lock:
            return self._drop_unextended(outcomes, now)

    def _drop_unextended(self, outcomes: Mapping[str, SettleOutcome], now: float) -> list[HeldJob]:
        cancelled: list[HeldJob] = []
        for receipt in [each for each in self._jobs if each in outcomes]:
            if outcomes[receipt] is SettleOutcome.OK:
                self._jobs[receipt].renewed_s = now
                continue
            job = self._jobs.pop(receipt)
            if outcomes[receipt] is SettleOutcome.CANCELLED:
                cancelled.append(job)
        return cancelled

    def clear(self) -> None:
        """Hold none."""
        with self._lock:
            self._jobs.clear()


def without(jobs: list[HeldJob], others: list[HeldJob]) -> list[HeldJob]:
    """Return the jobs that aren't among others."""
    if not others:
        return jobs
    those = set(others)
    return [job for job in jobs if job not in those]
