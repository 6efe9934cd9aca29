"""How stores keep what became of a job: one byte that says it, and the output or the error behind."""

from ...ports import JobResult, ResultStatus

_DONE, _DONE_WITHOUT, _FAILED, _CANCELLED = b"d", b"n", b"f", b"c"
"""How a record begins, of a job that is done and gave something back, or nothing; of one that is dead; and of
one that was cancelled."""


def make_record(result: JobResult) -> bytes:
    """Write a result as a record."""
    if result.status is ResultStatus.FAILED:
        return _FAILED + (result.error or "").encode("utf-8", "replace")
    if result.status is ResultStatus.CANCELLED:
        return _CANCELLED
    return _DONE_WITHOUT if result.body is None else _DONE + result.body


def parse_record(record: bytes) -> JobResult:
    """Read a record; a byte of an error that is no text is shown as an escape."""
    how, said = record[:1], record[1:]
    if how == _FAILED:
        return JobResult(ResultStatus.FAILED, error=said.decode("utf-8", "backslashreplace"))
    if how == _CANCELLED:
        return JobResult(ResultStatus.CANCELLED)
    return JobResult(ResultStatus.DONE, said if how == _DONE else None)
