"""Threads that wait until something changes in a queue."""

from ...ports.signal_safe_event import SignalSafeEvent


class Waits(dict[SignalSafeEvent, None]):
    """The threads that wait for a change, first come first. The caller holds the queue's lock.

    A condition leaves the lock and takes it again inside the caller's ``with``. A signal handler that raises
    between the two has the ``with`` leave a lock that is free, or that another thread holds. So a thread
    joins here while it holds the lock, and waits on its event once it has left the lock. It leaves by ``pop``
    when it waits no longer: no interrupt ends that half-way.
    """

    def join(self, wake: SignalSafeEvent) -> None:
        """Have ``wake`` set at the next change."""
        wake.clear()
        self[wake] = None

    def notify(self) -> None:
        """Wake the first thread that nobody has woken yet, if there is one."""
        for wake in self:
            if not wake.is_set():
                wake.set()
                return

    def notify_all(self) -> None:
        """Wake all threads."""
        for wake in self:
            wake.set()
