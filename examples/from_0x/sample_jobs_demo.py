"""The sample ``sample_jobs_demo.py`` of mindtrace-jobs 0.x, ported by docs/coming_from_0x.md."""

import argparse
import sys

from pydantic import BaseModel

from mindtrace.jobs import (
    Consumer,
    Job,
    JobSchema,
    JobsError,
    LocalClient,
    Orchestrator,
    OrchestratorBackend,
    RabbitMQClient,
    RedisClient,
    job_from_schema,
)


class MathsInput(BaseModel):
    """Input model for maths operations."""

    operation: str
    a: float
    b: float


class MathsOutput(BaseModel):
    """Output model for maths operations."""

    result: float
    operation_performed: str


maths_schema = JobSchema(
    name="maths_operations",
    input_schema=MathsInput,
    output_schema=MathsOutput,
)


class MathsConsumer(Consumer[MathsInput, MathsOutput]):
    """Consumer for processing maths operations."""

    def run(self, job: Job[MathsInput]) -> dict[str, object]:
        """Process a maths job."""
        operation, a, b = job.payload.operation, job.payload.a, job.payload.b

        print(f"Processing maths job: {operation}({a}, {b})")

        if operation == "add":
            result = a + b
        elif operation == "multiply":
            result = a * b
        elif operation == "power":
            result = a**b
        else:
            raise ValueError(f"Unknown operation: {operation}")

        print(f"Maths result: {result}")

        return {
            "result": result,
            "operation_performed": f"{operation}({a}, {b}) = {result}",
        }


def setup_backend(backend_type: str) -> OrchestratorBackend | str:
    """Set up the backend of this type; a URL stands for itself."""
    print(f"Setting up {backend_type.partition('://')[0]} backend...")
    if backend_type == "local":
        return LocalClient()
    if backend_type == "redis":
        return RedisClient(host="localhost", port=6379, db=0)
    if backend_type == "rabbitmq":
        return RabbitMQClient(host="localhost", port=5672, username="guest", password="guest")
    return backend_type


def demo_basic_operations(orchestrator: Orchestrator) -> None:
    """Demonstrate basic queue operations."""
    print("\n=== Basic Queue Operations ===")

    print("Registering job schema...")
    maths_queue = orchestrator.register(maths_schema)
    print(f"Created queue: {maths_queue}")

    maths_jobs = [
        job_from_schema(maths_schema, MathsInput(operation="add", a=10, b=5)),
        job_from_schema(maths_schema, MathsInput(operation="multiply", a=7, b=3)),
        job_from_schema(maths_schema, MathsInput(operation="power", a=2, b=8)),
    ]

    print("Publishing maths jobs...")
    for job in maths_jobs:
        job_id = orchestrator.publish(maths_queue, job)
        print(f"  Published job {job_id}")

    maths_count = orchestrator.count_queue_messages(maths_queue)
    print(f"Queue status: {maths_queue}={maths_count}")


def demo_consumers(orchestrator: Orchestrator) -> None:
    """Demonstrate job consumption."""
    print("\n=== Job Consumption ===")

    maths_consumer = MathsConsumer("maths_operations")

    print("Connecting consumer...")
    maths_consumer.connect(orchestrator)

    print("Processing maths jobs...")
    maths_consumer.consume(num_messages=3, block=False)
    maths_consumer.close()

    maths_count = orchestrator.count_queue_messages("maths_operations")
    print(f"Remaining in queue: maths_operations={maths_count}")


def demo_priority(orchestrator: Orchestrator) -> None:
    """Demonstrate priority jobs."""
    print("\n=== Priority Jobs ===")

    priority_queue = orchestrator.register(maths_schema, "priority", queue="maths_priority")
    print(f"Created priority queue: {priority_queue}")

    low_priority_job = job_from_schema(maths_schema, MathsInput(operation="add", a=1, b=1))
    high_priority_job = job_from_schema(maths_schema, MathsInput(operation="multiply", a=10, b=10))
    urgent_job = job_from_schema(maths_schema, MathsInput(operation="power", a=2, b=3))

    print("Publishing jobs in wrong order to test priority:")
    low_id = orchestrator.publish(priority_queue, low_priority_job, priority=1)
    print(f"Job {low_id} with priority=1 (add)")
    high_id = orchestrator.publish(priority_queue, high_priority_job, priority=5)
    print(f"Job {high_id} with priority=5 (multiply)")
    urgent_id = orchestrator.publish(priority_queue, urgent_job, priority=9)
    print(f"Job {urgent_id} with priority=9 (power)")

    queue_count = orchestrator.count_queue_messages(priority_queue)
    print(f"All messages in queue: {queue_count}")

    consumer = MathsConsumer(queue=priority_queue)
    consumer.connect(orchestrator)
    consumer.consume(num_messages=3, block=False)
    consumer.close()

    for queue in (priority_queue, "maths_operations"):
        print("Cleaning up queue...")
        orchestrator.clean_queue(queue)
        print(f"After cleanup: {queue}={orchestrator.count_queue_messages(queue)}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Mindtrace Jobs Demo")
    parser.add_argument(
        "--backend", default="local", help="local, redis, rabbitmq, or the URL of a backend (default: local)"
    )
    args = parser.parse_args()

    try:
        with Orchestrator(setup_backend(args.backend)) as orchestrator:
            demo_basic_operations(orchestrator)
            demo_consumers(orchestrator)
            demo_priority(orchestrator)
    except JobsError as error:
        print(f"Error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
