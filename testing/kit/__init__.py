"""A kit for tests of handlers: queues in memory, real serialisation, and a clock that only a test moves.

With pytest, a test takes the fixture ``jobs``, a :class:`JobKit`; anything else makes one::

    with JobKit() as jobs:
        jobs.connect(Inspector)
        job_id = jobs.publish(INSPECT, Image(path="a.png"), delay_s=3600)
        jobs.drain()  # runs it, an hour later by the kit's clock
        assert jobs.result(INSPECT, job_id) == Report(defects=5)

``run_job`` runs one handler once. ``assert_readable`` keeps jobs of earlier releases readable. It needs no
extra. Names are imported when first asked for, as pytest loads the plugin beside them in each of its runs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .history import HistoryEvent
    from .job_kit import JobKit
    from .single_run import run_job
    from .snapshots import assert_readable, save_snapshot

_MODULE_OF = {
    "HistoryEvent": "history",
    "JobKit": "job_kit",
    "assert_readable": "snapshots",
    "run_job": "single_run",
    "save_snapshot": "snapshots",
}

__all__ = ["HistoryEvent", "JobKit", "assert_readable", "run_job", "save_snapshot"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
