"""The backend that is used if none is named: the same for programs and for the command line."""

import os
import re
from collections.abc import Iterable, Mapping
from logging import Logger
from pathlib import Path
from typing import Any

from ...domain.errors import InvalidInput
from ...domain.wording import closest

PREFIX = "MINDTRACE_JOBS_"
VARIABLE = f"{PREFIX}BACKEND"
DEFAULT_URL = "sqlite:///mindtrace-jobs.db"
"""A file in the working folder, so that programs and commands work together with nothing started."""
PYPROJECT = Path("pyproject.toml")
TABLE = "mindtrace-jobs"
_TABLES = ("mindtracejobs", "mindtracejob")
"""Names of the table as they are misspelt, in small letters and without hyphens."""
SETTINGS = (
    "backend",
    "consumers",
    "observers",
    "processes",
    "autoscale",
    "concurrency",
    "jobs",
    "order",
    "grace_s",
    "lease_s",
    "timeout_s",
    "poll_s",
    "prefetch",
    "batch_size",
    "batch_wait_s",
    "max_jobs",
    "max_memory",
    "log_format",
    "log_level",
    "health_file",
    "metrics_port",
    "metrics_host",
    "tracing",
    "schedules",
)
"""What can be set in the table, or by a variable. A program reads the backend alone, and the command all."""
_GUESSES = {"url": "backend", "broker": "backend", "broker_url": "backend", "queues": "consumers"}
"""What has other names in other libraries."""
_VARIABLE = re.compile("MINDTRACE_?JOBS?_(.+)", re.IGNORECASE)
"""The name of a variable that was meant for this project."""
_OTHER_VARIABLES = re.compile(r"process_number|(.+_)?service_(host|port)(_.+)?|(.+_)?port_\d+_.+|port")
"""What a worker tells its processes, and what Kubernetes tells those beside services whose names begin so."""
_ALIKE = 0.75
"""How alike a name and that of a setting are, of 1, where the setting was probably meant."""


def default_url(logger: Logger) -> str:
    """Return the URL of the backend that is used if none is named, by the rules of the command line.

    The log says where it comes from, and not what it is, which may hold a password.

    Raises:
        InvalidInput: a variable or a key of ``pyproject.toml`` in the working folder has a misspelt name, the
            file can't be read, or its URL is no text.
    """
    try:
        if url := os.environ.get(VARIABLE):
            logger.info("no backend was named: using that of the variable %s", VARIABLE)
            return url
        check_variables(os.environ, only="backend")
        url = configured(PYPROJECT).get("backend")
        if url is not None and not isinstance(url, str):
            raise InvalidInput(f"{PYPROJECT}: backend in [tool.{TABLE}] must be a text, a URL")
    except InvalidInput as error:
        raise InvalidInput(f"{error}; or name the backend: Orchestrator(url)") from error
    if url is not None:
        logger.info("no backend was named: using that of pyproject.toml")
        return url
    logger.info("no backend was named: using %s in %s", DEFAULT_URL, Path.cwd())
    return DEFAULT_URL


def configured(path: Path) -> Mapping[str, Any]:
    """Return the settings that a ``pyproject.toml`` has for this project; none if there is no such file.

    Raises:
        InvalidInput: the file can't be read, or the name of a setting or of the table is misspelt.
    """
    import tomllib  # here, as most programs never need it

    try:
        document = tomllib.loads(path.read_text("utf-8"))
        tools = document.get("tool", {})
        table: dict[str, Any] = tools.get(TABLE, {})
        tables = {f"tool.{name}" for name in tools} | set(document)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:  # the last: what should be a table is none
        raise InvalidInput(f"{path}: {error}; correct it") from None
    for name in [name for name in table if name not in SETTINGS]:
        raise InvalidInput(f"{path}: [tool.{TABLE}] has the unknown setting {name!r}; {_remedy(name)}")
    for name in sorted(tables - {f"tool.{TABLE}"}):
        if _plain(name).removeprefix("tool.") in _TABLES:
            raise InvalidInput(f"{path}: the table [{name}] isn't read; did you mean [tool.{TABLE}]?")
    return table


def check_variables(names: Iterable[str], *, only: str | None = None) -> None:
    """Refuse variables of the environment whose names are misspelt, as nobody would read them.

    A name that resembles no setting is left alone, as it may be the user's own. So are names that Kubernetes
    makes of a service's.

    Args:
        names: The names of all variables.
        only: The one setting that matters; by default all do.

    Raises:
        InvalidInput: one is misspelt.
    """
    for name in names:
        found = _VARIABLE.fullmatch(name)
        if found is None or _OTHER_VARIABLES.fullmatch(setting := found[1].lower()):
            continue
        meant = _meant(setting)
        if setting.endswith("_port") and meant != "metrics_port":  # of Kubernetes, too
            continue
        if meant is not None and only in (None, meant) and name != f"{PREFIX}{meant.upper()}":
            raise InvalidInput(
                f"the variable {name} isn't read; did you mean {PREFIX}{meant.upper()}? Rename or unset it"
            )


def _meant(name: str) -> str | None:
    return _GUESSES.get(name) or closest(name, SETTINGS, alike=_ALIKE)


def _remedy(name: str) -> str:
    meant = _meant(name.lower())
    return f"the settings are {', '.join(SETTINGS)}" if meant is None else f"did you mean {meant!r}?"


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
