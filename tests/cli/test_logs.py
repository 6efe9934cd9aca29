"""The worker's logging: it configures what nobody else has, no line comes twice, and none waits for long."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mindtrace.jobs.cli import log_stream
from mindtrace.jobs.cli.log_stream import LogStream
from mindtrace.jobs.cli.logs import configure


@contextmanager
def unconfigured() -> Iterator[logging.Logger]:
    """The root logger, with nothing configured, as when a process begins; pytest's own handlers, too."""
    root, core = logging.getLogger(), logging.getLogger("mindtrace")
    level = root.level
    with pytest.MonkeyPatch.context() as patch:
        for logger in (root, core):
            patch.setattr(logger, "handlers", [])
            patch.setattr(logger, "propagate", True)
        yield root
    root.setLevel(level)


def test_a_configuration_that_is_there_is_left_alone() -> None:
    """Handlers, level and all."""
    handler = logging.NullHandler()
    with unconfigured() as root:
        root.addHandler(handler)
        root.setLevel(logging.ERROR)

        assert not configure("json", "debug")
        assert root.handlers == [handler]
        assert root.level == logging.ERROR


def test_lines_of_mindtrace_core_come_once(capfd: pytest.CaptureFixture[str]) -> None:
    """Which writes its errors to stderr, keeps records from the root logger, and takes every level."""
    core, kept = logging.getLogger("mindtrace"), logging.NullHandler()
    mine = logging.getLogger("mindtrace.mine")
    with unconfigured():
        core.addHandler(logging.StreamHandler(sys.stderr))
        core.addHandler(kept)
        core.propagate = False

        assert configure("text", "info")
        mine.setLevel(logging.DEBUG)
        mine.debug("a detail")
        mine.error("an error")
        assert core.handlers == [kept]

    (line,) = capfd.readouterr().err.splitlines()
    assert line.endswith(" ERROR   an error")


def fill(stream: LogStream, lines: int = 5000) -> None:
    for number in range(lines):
        stream.write(f"line {number:058d}\n")


def test_lines_that_nobody_reads_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_stream, "_PATIENCE_S", 0.01)
    reader, writer = os.pipe()
    stream = LogStream(writer)
    fill(stream)
    kept = os.read(reader, 1_000_000).count(b"\n")
    stream.write("after\n")
    told = os.read(reader, 1_000_000).decode()
    stream.write("and on\n")

    assert 0 < kept < 5000
    assert told.endswith(f"{5000 - kept} log lines were dropped: nobody read them\nafter\n")
    assert os.read(reader, 1_000_000) == b"and on\n"
    os.close(reader)
    stream.write("nobody is left\n")
    os.close(writer)


def test_other_users_of_the_pipe_may_still_wait_for_room() -> None:
    """The descriptor is shared with the programs that a job starts, which don't expect an error."""
    reader, writer = os.pipe()
    LogStream(writer).write("a line\n")

    assert os.get_blocking(writer)
    os.close(reader)
    os.close(writer)


def test_no_line_is_written_to_a_file_that_took_the_number_of_a_closed_descriptor(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    stream = LogStream(writer)
    os.close(stream._own)
    with tmp_path.joinpath("precious").open("w") as precious:
        assert precious.fileno() == stream._own
        stream.write("a line\n")
    assert tmp_path.joinpath("precious").read_text() == ""
    assert os.read(reader, 100) == b"a line\n"
    os.close(reader)
    os.close(writer)


def test_a_file_is_written_where_its_other_users_go_on(tmp_path: Path) -> None:
    with tmp_path.joinpath("log").open("wb", buffering=0) as log:
        stream = LogStream(log.fileno())
        stream.write("first\n")
        log.write(b"second\n")
        stream.write("third\n")
    assert tmp_path.joinpath("log").read_text() == "first\nsecond\nthird\n"
