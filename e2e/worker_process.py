"""Start the recording worker as a process."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from job_audit import ExecutionRecord

WORKER = Path(__file__).with_name("recording_worker.py")
SHIFTED_CLOCK = Path(__file__).with_name("shifted_clock.py")


class WorkerProcess:
    """``recording_worker.py`` as a process.

    Args:
        url: The backend.
        record: The file that gets a line for each execution.
        clock_off_s: Seconds by which its wall clock is off.
        options: Its options, such as ``lease_s``.
    """

    def __init__(
        self, url: str, record: ExecutionRecord, *, clock_off_s: float = 0.0, **options: float | str | Path
    ) -> None:
        words = [sys.executable, *([str(SHIFTED_CLOCK), str(clock_off_s)] if clock_off_s else [])]
        words += [str(WORKER), url, str(record.path)]
        for name, value in options.items():
            words += [f"--{name.replace('_', '-')}", str(value)]
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.pid = self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def is_stopped(self) -> bool:
        """Whether a SIGSTOP holds it."""
        stat = Path(f"/proc/{self.pid}/stat").read_text("utf-8")
        return stat.rpartition(")")[2].split()[0] == "T"

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it with SIGKILL; a no-op where it has ended."""
        self._process.kill()
        self._process.communicate()

    def end(self) -> dict[str, int]:
        """Stop it with SIGTERM, as a supervisor does, and return the statistics that it prints."""
        self._process.send_signal(signal.SIGTERM)
        out, err = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, err.decode()
        stats: dict[str, int] = json.loads(out)
        return stats
