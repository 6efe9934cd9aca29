"""The sample ``orchestrator_simple.py`` of mindtrace-jobs 0.x, ported by docs/coming_from_0x.md."""

from pydantic import BaseModel

from mindtrace.jobs import JobSchema, Orchestrator


# With mindtrace-core: from mindtrace.core import EchoInput, echo_task
class EchoInput(BaseModel):
    message: str
    delay: float = 0.0


class EchoOutput(BaseModel):
    echoed: str


echo_task = JobSchema(name="echo", input_schema=EchoInput, output_schema=EchoOutput)

orchestrator = Orchestrator()
orchestrator.register(echo_task)

job_id = orchestrator.publish("echo", EchoInput(message="Hello, world!"))

print(orchestrator.receive_message("echo"))
