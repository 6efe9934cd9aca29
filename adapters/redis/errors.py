"""Errors between the server and the caller: what the server's refusal, or its silence, means."""

from ...domain.errors import BackendError, BackendUnavailable


class QueueDamaged(BackendError):
    """A key of the queue has another type than it should: somebody else wrote it."""


class RefusedByServer(BackendError):
    """The server answered with an error; the message is its own.

    Args:
        text: The message.
        may_have_run: Whether the command was sent before, and that answer lost.
    """

    def __init__(self, text: str, may_have_run: bool) -> None:
        self.may_have_run = may_have_run
        super().__init__(text)


class OutOfMemory(BackendUnavailable):
    """The server lacks memory: nothing was done, nothing is lost, and it goes on when there is room again."""


class ServerUnreachable(Exception):
    """The server couldn't be reached in time. It never gets to the caller, who is told BackendUnavailable.

    Args:
        error: Why.
        may_have_run: Whether the command was sent, so that it may or may not have run.
    """

    def __init__(self, error: Exception, may_have_run: bool) -> None:
        self.error = error
        self.may_have_run = may_have_run
        super().__init__(str(error))


def names_no_queue(error: RefusedByServer) -> bool:
    """Tell whether the queue that the script is about isn't there."""
    return str(error).startswith("NOQUEUE")


def is_out_of_memory(error: RefusedByServer) -> bool:
    """Tell whether the server lacks the memory for a write."""
    return str(error).startswith(("OOM", "command not allowed when used memory"))


def refuse_for_now(error: RefusedByServer) -> None:
    """Raise OutOfMemory if the server lacks memory. A publish tells its caller by :func:`why_refused`."""
    if is_out_of_memory(error):
        raise OutOfMemory(f"Redis is out of memory, nothing was done: free or add some ({error})") from error


def why_refused(error: RefusedByServer) -> BackendError:
    """Return what the refusal of a publish is to the caller: one for lack of memory says so."""
    if is_out_of_memory(error):
        return BackendError(f"Redis is out of memory, nothing was published: {error}")
    return error
