"""Settings: from options, else from the environment, else from ``pyproject.toml``, else the defaults."""

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import unquote

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.exceptions import SettingsError

import mindtrace

from ..application.broker.default_backend import (
    DEFAULT_URL,
    PREFIX,
    PYPROJECT,
    TABLE,
    check_variables,
    configured,
)
from ..domain.bounds import MAX_DELAY_S, NAME
from ..domain.errors import InvalidInput
from .errors import BadUsage
from .memory_limit import MemoryLimit

LogFormat = Literal["text", "json"]
Order = Literal["strict", "weighted"]
_MAX_PROCESSES = 1024
LogLevel = Literal["debug", "info", "warning", "error"]
_HOST = r"(?:[\w.-]+|\[[\da-fA-F:.]+\])(?::\d+)?"
_WHERE = re.compile(rf"(?:{_HOST}(?:,{_HOST})*)?(?:/(?:(?!%40|%3A)[^@:])*)?", re.IGNORECASE)
"""Hosts, and a path after them: what a URL says when it is well formed and no secret."""
_NAMESPACE = re.compile(rf"(?:^|(?<=&))(?:namespace|schema)={NAME}(?=&|$)")
"""Where in a broker the queues are; its characters were checked, so it may be shown."""
_STORE = re.compile("(?:^|(?<=&))(?:results|store)=[^&]*")
"""The URL of a store, in the query of another."""


class ProcessRange(NamedTuple):
    """How many processes a worker has at least and at most."""

    least: int
    most: int

    @classmethod
    def parse(cls, text: str) -> "ProcessRange":
        """Read ``1:8``.

        Raises:
            ValueError: it is something else.
        """
        least, separator, most = text.partition(":")
        if not (separator and least.isascii() and least.isdigit() and most.isascii() and most.isdigit()):
            raise ValueError("give a range of processes such as 1:8")
        found = cls(int(least), int(most))
        if not 1 <= found.least < found.most <= _MAX_PROCESSES:
            raise ValueError(f"give at least 1, then a larger number, up to {_MAX_PROCESSES:,}, such as 1:8")
        return found


class Settings(BaseSettings):
    """The settings of every command. Times are in seconds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        pyproject_toml_table_header=("tool", TABLE),
        extra="forbid",
        frozen=True,
        env_ignore_empty=True,
    )

    backend: SecretStr = SecretStr(DEFAULT_URL)
    consumers: Annotated[tuple[str, ...], NoDecode] = ()
    observers: Annotated[tuple[str, ...], NoDecode] = ()
    processes: int = Field(1, ge=1, le=_MAX_PROCESSES)
    autoscale: Annotated[ProcessRange | None, NoDecode] = None
    concurrency: int | None = Field(None, ge=1, le=10_000)
    jobs: int | None = Field(None, ge=1, le=10_000)
    order: Order | None = None
    grace_s: float = Field(30.0, ge=0, le=86_400)
    lease_s: float = Field(30.0, gt=0, le=86_400)
    timeout_s: float | None = Field(None, gt=0, le=MAX_DELAY_S, allow_inf_nan=False)
    poll_s: float = Field(5.0, gt=0, le=3600)
    prefetch: int | None = Field(None, ge=1, le=10_000)
    batch_size: int | None = Field(None, ge=1, le=10_000)
    batch_wait_s: float | None = Field(None, ge=0, le=86_400)
    max_jobs: int | None = Field(None, ge=1)
    max_memory: str | None = None
    log_format: LogFormat = "text"
    log_level: LogLevel = "info"
    health_file: Path | None = None
    metrics_port: int | None = Field(None, ge=1, le=65_535)
    metrics_host: str = "127.0.0.1"
    tracing: bool = False
    schedules: bool = False

    @property
    def most_processes(self) -> int:
        """How many processes there are at most."""
        return self.processes if self.autoscale is None else self.autoscale.most

    @field_validator("consumers", "observers", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """A list, or in the environment their names with spaces or commas between."""
        return value.replace(",", " ").split() if isinstance(value, str) else value

    @field_validator("autoscale", mode="before")
    @classmethod
    def _read_range(cls, value: object) -> object:
        return ProcessRange.parse(value) if isinstance(value, str) else value

    @field_validator("max_memory")
    @classmethod
    def _check_memory(cls, value: str | None) -> str | None:
        if value is not None:
            MemoryLimit.parse(value)
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Options before the environment before ``pyproject.toml``."""
        return init_settings, env_settings, PyprojectTomlConfigSettingsSource(settings_cls)


def load_settings(**options: Any) -> Settings:
    """Return the settings, with those ``options`` that aren't None in place of what is configured.

    Raises:
        BadUsage: one is unknown or out of range; the message names it, and never its value.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if isinstance(given.get("backend"), str):
        given["backend"] = SecretStr(given["backend"])
    try:
        check_variables(os.environ)
        configured(PYPROJECT)
        return Settings(**given)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors(include_url=False, include_context=False, include_input=False)
        )
        raise BadUsage(
            f"settings: {problems}. They come from options, {PREFIX}… variables, and [tool.{TABLE}] of "
            "pyproject.toml in the working folder"
        ) from None
    except InvalidInput as error:
        raise BadUsage(str(error)) from None
    except (SettingsError, ValueError) as error:  # such as a pyproject.toml that is no TOML
        raise BadUsage(f"pyproject.toml: {error}") from None


def masked(url: str) -> str:
    """Return ``url`` without what may be secret: who connects, and the query but for the namespace.

    A file's path is shown from the root: a relative one is another file in another folder.

    A password that isn't encoded may hold any character, so a URL that can be read in two ways shows its
    scheme alone.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return "the backend"
    address, *query = re.split("[?#]", rest, maxsplit=1)
    who, at, where = address.rpartition("@")
    if not _WHERE.fullmatch(where) or "@" in _STORE.sub("", "".join(query)):
        return f"{scheme}://***"
    if scheme == "sqlite" and where.startswith("/") and where != "/":
        where = f"/{Path(where.removeprefix('/')).resolve()}"
    namespace = _NAMESPACE.search("".join(query))
    return f"{scheme}://{'***@' if at and who else ''}{where}{f'?{namespace[0]}' if namespace else ''}"


def masked_with_stores(url: str) -> str:
    """Return ``url`` as :func:`masked` does, and after it the stores that its query names, likewise."""
    shown = masked(url)
    if shown.endswith("://***"):  # it can be read in two ways, so what looks like a store may be a password
        return shown
    words = (word.partition("=") for word in url.partition("?")[2].split("&"))
    stores = {word: masked(unquote(value)) for word, _, value in words if word in ("store", "results")}
    return shown + "".join(f", {word}: {store}" for word, store in sorted(stores.items(), reverse=True))


def add_to_path(folder: Path) -> None:
    """Let modules be imported from ``folder``, as ``python -m`` does with the working folder.

    Raises:
        BadUsage: a module there, or in the working folder, hides this package from whoever is started there.
    """
    for each in (folder.resolve(), Path.cwd()):
        for hiding in (each / "mindtrace.py", each / "mindtrace" / "__init__.py"):
            if hiding.is_file() and str(hiding.parent) not in mindtrace.__path__:
                raise BadUsage(
                    f"{hiding} hides the package mindtrace, so that no worker could start: rename it"
                )
    path = str(folder.resolve())
    if path not in sys.path:
        sys.path.insert(0, path)
