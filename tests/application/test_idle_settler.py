"""The thread that settles while its consumer waits: it ends when it is told to, at whatever moment."""

import logging
import threading
from typing import Any
from unittest.mock import MagicMock

from mindtrace.jobs.application.consuming.idle_settler import IdleSettler


class JobsThatEnd:
    """One job in flight, which is settled at the first look; the look takes until the settler is ended."""

    def __init__(self) -> None:
        self.settler: Any = None
        self.looked = threading.Event()
        self.is_settled = False

    @property
    def is_idle(self) -> bool:
        if self.is_settled:
            self.looked.set()
            self.settler._ended.wait(0.2)
        return self.is_settled

    def settle(self) -> None:
        self.is_settled = True

    def wait_for_finished(self, count: int, timeout_s: float) -> None:
        pass

    def end_waits(self) -> None:
        pass


def test_it_ends_while_it_looks_whether_any_job_is_left() -> None:
    """Else it would rest after it was told to end, and its consumer would wait for it for ever."""
    jobs = JobsThatEnd()
    settler = jobs.settler = IdleSettler(jobs, logging.getLogger("test"))  # type: ignore[arg-type]
    when_idle = MagicMock()

    def work() -> None:
        with settler, settler.settling(when_idle):
            assert jobs.looked.wait(60)

    consumer = threading.Thread(target=work, daemon=True)
    consumer.start()
    consumer.join(60)
    assert not consumer.is_alive()
