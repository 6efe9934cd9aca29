"""An interrupt at a chosen point of a call, as Ctrl-C comes: always at the same one, unlike a real signal."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def interrupt_at(point: int, file: str | tuple[str, ...], call: Callable[[], object]) -> bool:
    """Raise KeyboardInterrupt at one of the points of a call at which Python looks for signals.

    Those are where a function of Python begins, and where a built-in one has returned.

    Args:
        point: Which, from 1, of those in files whose names end with ``file``.
        file: See above; or several of them.
        call: What to interrupt.

    Returns:
        Whether it was interrupted; else it ended before that point.
    """
    points = 0

    def profile(frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal points
        if event in ("call", "c_return") and frame.f_code.co_filename.endswith(file):
            points += 1
            if points == point:
                raise KeyboardInterrupt

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(before)
    return False
