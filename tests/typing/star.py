"""Code that imports all public names at once; type checkers must accept it."""

from mindtrace.jobs import *  # noqa: F403


def attempt(jobs: Orchestrator) -> str:  # noqa: F405
    try:
        return jobs.publish("inspect", {"path": "a.png"})
    except QueueNotFound:  # noqa: F405
        return "register it first"
    except JobsError as error:  # noqa: F405
        return str(error)
