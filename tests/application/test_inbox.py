"""Signals as messages."""

import signal
import threading

from mindtrace.jobs.application.inbox import WAKE, Inbox


def test_signals_and_posts_arrive_in_order() -> None:
    with Inbox([signal.SIGUSR1]) as inbox:
        signal.raise_signal(signal.SIGUSR1)
        inbox.post(signal.SIGTERM)
        inbox.post()

        assert inbox.wait(5) == [signal.SIGUSR1, signal.SIGTERM, WAKE]
        assert inbox.wait(0) == []


def test_a_post_from_a_thread_ends_the_wait() -> None:
    with Inbox([]) as inbox:
        threading.Timer(0.05, inbox.post).start()

        assert inbox.wait(3600) == [WAKE]


def test_more_than_it_holds_is_dropped_and_not_waited_for() -> None:
    """Whoever reads it has enough to wake for."""
    with Inbox([]) as inbox:
        for _ in range(100_000):
            inbox.post()
        assert inbox.wait(0)


def test_it_leaves_signals_as_they_were_and_takes_no_post_afterwards() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with Inbox([signal.SIGUSR1]) as inbox:
        assert signal.getsignal(signal.SIGUSR1) is not before
    inbox.post()

    assert signal.getsignal(signal.SIGUSR1) is before
    assert signal.set_wakeup_fd(-1) == -1
