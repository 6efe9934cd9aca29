"""How fast a worker drains by how many jobs wait, through the application."""

import tempfile
from pathlib import Path

from ..in_process import QUEUE, connect, drain_application, messages
from ..results import Results

DRAINED = 900
CHUNK = 20_000


def measure(results: Results, urls: dict[str, str], sizes: tuple[int, ...], rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for broker, url in urls.items():
            where = f"sqlite:///{Path(folder) / 'jobs.db'}" if broker == "sqlite" else url
            if broker == "rabbitmq":
                where += "?prefetch=adaptive"
            with connect(where) as orchestrator:
                orchestrator.clean_queue(QUEUE)
                for size in sizes:
                    for number in range(rounds + 1):
                        while (missing := size - orchestrator.count_queue_messages(QUEUE)) > 0:
                            orchestrator.backend.publish(QUEUE, messages(min(CHUNK, missing)))
                        rate = (DRAINED - 1) / drain_application(orchestrator, None, DRAINED)
                        if number:  # the first shows them to the caches
                            results.add("backlog", broker, "this project", f"{size}", "jobs/s", rate)
                orchestrator.clean_queue(QUEUE)
