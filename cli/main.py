"""The group of commands, and the one place where an error becomes a message and an exit code."""

import logging
import os
import sys
import traceback

import click

from ..domain.errors import JobsError
from ..domain.printable import printable_lines
from .cancel import cancel
from .contract import contract
from .dead import dead
from .doctor import doctor
from .errors import Exit, exit_code, for_commands
from .exporter import exporter
from .health import health
from .limits import limits
from .migrate import migrate
from .output import fail
from .publish import publish
from .queues import delete, pause, purge, queues, resume
from .results import result
from .schedules import scheduler, schedules
from .worker import worker


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mindtrace-jobs", prog_name="mindtrace-jobs")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts; works with every command.")
def commands(as_json: bool) -> None:
    """Run workers, publish jobs, and manage queues.

    Options of a command come after its name, as in: queues --backend redis://localhost:6379/0

    Exit codes: 0 success; 1 a check failed or a job is dead; 2 wrong usage;
    3 the broker is out of reach or refuses; 4 no such queue, job, result, schedule or limit;
    5 an extra isn't installed; 130 stopped at once.
    """


for _command in (
    worker,
    publish,
    queues,
    pause,
    resume,
    cancel,
    dead,
    result,
    purge,
    delete,
    limits,
    schedules,
    scheduler,
    doctor,
    migrate,
    health,
    exporter,
    contract,
):
    commands.add_command(_command)


def run(arguments: list[str] | None = None) -> int:
    """Run one command, and return its exit code."""
    # A command says itself what went wrong; without this, the library's warnings would be printed as well.
    logging.getLogger("mindtrace.jobs").addHandler(logging.NullHandler())
    try:
        answer = commands.main(arguments, prog_name="mindtrace-jobs", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return int(Exit.USAGE)
    except click.Abort:
        return fail("stopped before anything was done", Exit.AT_ONCE)
    except KeyboardInterrupt:
        return int(Exit.AT_ONCE)
    except JobsError as error:
        return fail(for_commands(str(error)), exit_code(error))
    except BrokenPipeError:  # such as `| head`: the reader has what it wants
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(Exit.OK)
    except Exception:
        print(printable_lines(traceback.format_exc().rstrip()), file=sys.stderr)
        return fail("this is a bug: please report it, with the lines above", Exit.BUG)
    return int(answer or Exit.OK)
