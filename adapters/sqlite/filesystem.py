"""Where a file lies, since SQLite's log is shared memory, which machines can't share; and who may read it."""

import os
import re
import threading
from contextlib import suppress
from pathlib import Path

from ...domain.errors import BrokerUnsuitable

_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|ncpfs|afs|ceph|lustre|gpfs|glusterfs|beegfs|pvfs2"
    r"|fuse\.(sshfs|ceph|ceph-fuse|glusterfs|s3fs|rclone|smbnetfs|davfs.*|juicefs|gcsfuse|goofys|mfs)"
)
_ESCAPED = re.compile(r"\\([0-7]{3})")

_making = threading.Lock()
"""A process that closes a file loses all its locks on it, SQLite's too: nobody opens one while it is made."""


def make_private(path: Path) -> None:
    """Make a file that only its owner may read, unless there is one; SQLite gives its log the same mode.

    Where it can't be made, SQLite says why when it opens it.
    """
    with _making, suppress(OSError):
        file = os.open(os.path.realpath(path), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(file, 0o600)  # whatever the umask
        finally:
            os.close(file)


def mode_of(path: Path) -> int:
    """Who may read and write ``path``, as bits; its owner alone where it can't be found."""
    try:
        return path.stat().st_mode & 0o666
    except OSError:
        return 0o600


def refuse_network_share(path: Path, mounts: Path = _MOUNTS) -> None:
    """Refuse a file on a file system that other machines share, where the system says what it is.

    Raises:
        BrokerUnsuitable: it is such a one.
    """
    kind = filesystem_of(path, mounts)
    if kind is not None and _NETWORK.fullmatch(kind):
        raise BrokerUnsuitable(
            f"{path} is on a network share ({kind}), where SQLite's locks and log can't be relied on: put it "
            "on a local disk, or use a server such as Redis where several machines work together"
        )


def filesystem_of(path: Path, mounts: Path = _MOUNTS) -> str | None:
    """The type of the file system of ``path``, such as ``ext4``; None where the system doesn't say."""
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    found: tuple[int, str] | None = None
    for line in lines:
        # … mount point … - type source options; what was mounted last over a point hides the others.
        before, _, after = line.partition(" - ")
        point = Path(_ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), before.split()[4]))
        if path.is_relative_to(point) and (found is None or len(point.parts) >= found[0]):
            found = (len(point.parts), after.split()[0])
    return None if found is None else found[1]
