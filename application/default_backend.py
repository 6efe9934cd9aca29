"""The backend that is used if none is named: the same for programs and for the command line."""

import os
from logging import Logger
from pathlib import Path

from ..domain.errors import InvalidInput

VARIABLE = "MINDTRACE_JOBS_BACKEND"
DEFAULT_URL = "sqlite:///mindtrace-jobs.db"
"""A file in the working folder, so that programs and commands work together with nothing started."""


def default_url(logger: Logger) -> str:
    """Return the URL of the backend that is used if none is named, by the rules of the command line.

    The log says where it comes from, and not what it is, which may hold a password.

    Raises:
        InvalidInput: ``pyproject.toml`` in the working folder can't be read, or its URL is no text.
    """
    if url := os.environ.get(VARIABLE):
        logger.info("no backend was named: using that of the variable %s", VARIABLE)
        return url
    if (url := _configured_url(Path("pyproject.toml"))) is not None:
        logger.info("no backend was named: using that of pyproject.toml")
        return url
    logger.info("no backend was named: using %s in %s", DEFAULT_URL, Path.cwd())
    return DEFAULT_URL


def _configured_url(path: Path) -> str | None:
    import tomllib  # here, as most programs never need it

    try:
        url = tomllib.loads(path.read_text("utf-8")).get("tool", {}).get("mindtrace-jobs", {}).get("backend")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:  # the last: what should be a table is none
        raise InvalidInput(f"{path}: {error}; correct it, or name the backend: Orchestrator(url)") from None
    if url is not None and not isinstance(url, str):
        raise InvalidInput(f"{path}: backend in [tool.mindtrace-jobs] must be a text, a URL")
    return url
