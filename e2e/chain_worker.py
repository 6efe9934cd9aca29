"""A worker process of chains: each job of a link publishes the job of the next link with its ack.

Every next job gets an id that was never used. So a job that was published twice shows, though most brokers
would drop a second one of the same id.
"""

import sys
import threading

from mindtrace.jobs import Job, JobInput, JobSchema, Orchestrator, RetryPolicy, Then, job_handler
from mindtrace.jobs.domain.job import new_job_id

LINKS = 5


class Link(JobInput):
    chain: int


SCHEMAS = [JobSchema(f"link-{number}", Link, retry=RetryPolicy(max_crashes=1_000)) for number in range(LINKS)]
ENDS = JobSchema("ends", Link)
HANDLERS = []
for _schema, _following in zip(SCHEMAS, [*SCHEMAS[1:], ENDS], strict=True):

    @job_handler(_schema)
    def go_on(job: Job[Link], following: JobSchema[Link] = _following) -> Then:
        return Then(following, job.payload, id=new_job_id())

    HANDLERS.append(go_on)


def work(orchestrator: Orchestrator, number: int, lease_s: float) -> None:
    with HANDLERS[number].consumer() as consumer:
        consumer.connect(orchestrator, lease_s=lease_s, poll_timeout_s=0.5)
        consumer.consume()


def main(url: str, lease_s: str) -> None:
    with Orchestrator(url) as orchestrator:
        for schema in (*SCHEMAS, ENDS):
            orchestrator.register(schema)
        threads = [
            threading.Thread(target=work, args=(orchestrator, number, float(lease_s)), daemon=True)
            for number in range(LINKS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
