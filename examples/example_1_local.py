"""One schema, one consumer and a few jobs, on a backend that needs nothing installed."""

from mindtrace.jobs import Consumer, Job, JobInput, JobOutput, JobSchema, LocalClient, Orchestrator


class MyJobInput(JobInput):
    x: float = 0.0
    y: float = 0.0


class MyJobOutput(JobOutput):
    total: float = 0.0


class MyConsumer(Consumer):
    def run(self, job: Job[MyJobInput]) -> MyJobOutput:
        print(f"Processing job {job.id} with LOCAL backend")
        return MyJobOutput(total=job.payload.x + job.payload.y)


def main() -> None:
    local_backend = LocalClient()
    orchestrator = Orchestrator(local_backend)

    schema = JobSchema(name="my_jobs", input=MyJobInput(), output=MyJobOutput())
    orchestrator.register(schema)
    job_ids = [orchestrator.publish("my_jobs", MyJobInput(x=i, y=0.5)) for i in range(5)]

    consumer = MyConsumer("my_jobs")
    consumer.connect(orchestrator)
    consumer.consume(num_messages=5)

    for job_id in job_ids:
        print(f"Result of {job_id}: {orchestrator.result('my_jobs', job_id).total}")


if __name__ == "__main__":
    main()
