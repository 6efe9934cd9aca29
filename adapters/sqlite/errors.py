"""The one seam where the driver's errors become ours."""

import os
import sqlite3
from pathlib import Path

from ...domain.errors import AccessDenied, BackendError, BackendUnavailable, BrokerUnsuitable

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_DENIED = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}
_SYNC_FAILED = {sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC}


class DiskFull(BackendUnavailable):
    """The file can't grow: nothing was done, nothing is lost, and it goes on when there is room again."""


class FileDamaged(BackendError):
    """The file can't be read as a database any more; it is left as it is."""


class CommitUnknown(BackendUnavailable):
    """The disk failed while a transaction was committed: it may or may not show after a crash."""


def is_busy(error: sqlite3.Error) -> bool:
    """Tell whether another connection is in the way, for now."""
    return _code(error) in _BUSY


def leaves_open(error: sqlite3.Error) -> bool:
    """Tell whether what was being committed is written down, and nobody knows whether it is safe."""
    return getattr(error, "sqlite_errorcode", 0) in _SYNC_FAILED


def translated(error: sqlite3.Error, path: Path) -> BackendError:
    """Return what to tell the caller of an error that no more waiting mends."""
    code = _code(error)
    if code in _BUSY:
        return BackendUnavailable(
            f"another process or thread kept {path} locked for longer than retry_timeout_s: end it if it "
            f"hangs in a transaction; fuser '{path}' shows the processes"
        )
    if code in _DENIED:
        return AccessDenied(
            f"{path} can't be written ({error}): let this user write the file and its folder, as SQLite "
            "keeps files of its own beside it"
        )
    if code == sqlite3.SQLITE_CANTOPEN:
        return _cannot_open(error, path)
    if code == sqlite3.SQLITE_FULL:
        return DiskFull(f"no room for {path} to grow, nothing was done: free some space ({error})")
    if code == sqlite3.SQLITE_NOTADB:
        return BrokerUnsuitable(f"{path} is no SQLite database, and is left as it is: name another file")
    if code == sqlite3.SQLITE_CORRUPT:
        return damaged(path, str(error))
    if code == sqlite3.SQLITE_IOERR:
        name = getattr(error, "sqlite_errorname", "")
        return BackendUnavailable(f"the disk of {path} failed, nothing was done ({error}, {name})")
    return BackendError(f"{path}: {error}")


def damaged(path: Path, what: str) -> FileDamaged:
    """Return what to tell of a file in which ``what`` was found."""
    return FileDamaged(
        f"{path} is damaged ({what}): stop all that use it, then save what can be read with "
        f"sqlite3 '{path}' .recover | sqlite3 NEW_FILE"
    )


def _cannot_open(error: sqlite3.Error, path: Path) -> BackendError:
    try:
        if path.is_dir():
            return BrokerUnsuitable(f"{path} is a folder: name a file in it")
        if path.parent.exists() and not path.parent.is_dir():
            return BrokerUnsuitable(f"{path.parent} is no folder: name a file in one")
        if not path.parent.is_dir():
            return BackendUnavailable(f"no folder {path.parent} for {path.name}: create it")
    except PermissionError:
        return AccessDenied(f"{path} can't be opened: let this user enter the folders above it")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.R_OK | os.W_OK)):
        return AccessDenied(f"{path} can't be opened: let this user write the file and its folder")
    return BackendUnavailable(
        f"{path} can't be opened ({error}): name a file in a folder that this user can write"
    )


def _code(error: sqlite3.Error) -> int:
    """The error's primary code."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
