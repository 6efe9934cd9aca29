"""Missing programs are installed where that may be done: messages name the packages."""

import os
import shutil
import subprocess
from typing import Any

import pytest

from brokers import __main__ as command
from brokers import debian_packages, pgbouncer, postgresql_server, rabbitmq_server, redis_server

MODULES = (pgbouncer, postgresql_server, rabbitmq_server, redis_server)


def test_every_message_about_a_missing_server_names_a_package() -> None:
    hints = [module.HOW_TO_INSTALL for module in MODULES]

    assert debian_packages.packages_for(hints) == [
        "pgbouncer",
        "postgresql",
        "rabbitmq-server",
        "redis-server",
    ]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What apt-get was asked for, on a machine where it may be."""
    words: list[list[str]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(subprocess, "run", lambda command, **_options: words.append(command))
    return words


def test_what_is_missing_is_installed_and_looked_for_again(
    asked: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers: list[Any] = [([], ["No Tool: apt-get install tool"]), (["Tool: here"], [])]
    monkeypatch.setattr(command, "find_servers", lambda _servers: answers.pop(0))

    command.main()

    assert [words[-1] for words in asked] == ["-qq", "tool"]
    assert capsys.readouterr().out == "installing tool\nTool: here\n"


def test_without_the_right_to_install_the_message_says_how(
    asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(command, "find_servers", lambda _servers: ([], ["No Tool: apt-get install tool"]))

    with pytest.raises(SystemExit, match="apt-get install tool"):
        command.main()
    assert asked == []
