"""A worker process whose limit is changed while it runs. It logs each place that it is given or leaves."""

import os
import sys
import threading
from pathlib import Path

from mindtrace.jobs import Consumer, Job, JobInput, JobSchema, Limit, Orchestrator
from place_audit import PlaceLog

SLOTS = 4


class Frame(JobInput):
    number: int


SCHEMA = JobSchema("changed", Frame, concurrency_limit=Limit(1, name="gpu"))


class Work(Consumer[Frame]):
    """Its jobs run until the file of their number is there. Meanwhile they write down what it may run."""

    schema = SCHEMA

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def run(self, job: Job[Frame]) -> None:
        self._folder.joinpath(f"started-{job.payload.number}").touch()
        while not (self._folder / "end" / str(job.payload.number)).exists():
            self._folder.joinpath(f"knows-{os.getpid()}").write_text(str(self._known_limit), "ascii")
            threading.Event().wait(0.01)

    @property
    def _known_limit(self) -> int:
        watch = self.orchestrator.pause_watch
        assert watch is not None
        ((limit,),) = [member.limits for member in watch._members]
        return limit.present.count


def main(url: str, folder: str) -> None:
    with Orchestrator(url) as orchestrator:
        PlaceLog(Path(folder, "places")).watch(orchestrator.backend.coordination)
        with Work(Path(folder)) as consumer:
            consumer.connect(orchestrator, concurrency=SLOTS, lease_s=60.0)
            consumer.consume()


if __name__ == "__main__":
    main(*sys.argv[1:])
