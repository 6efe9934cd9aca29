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

    def run(command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        words.append(command)
        return subprocess.CompletedProcess(command, 0, "", "harmless")

    monkeypatch.setattr(subprocess, "run", run)
    return words


def test_what_is_missing_is_installed_and_looked_for_again(
    asked: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers: list[Any] = [([], ["No Tool: apt-get install tool"]), (["Tool: here"], [])]
    monkeypatch.setattr(command, "find_servers", lambda _servers: answers.pop(0))

    command.main()

    assert [words[-1] for words in asked] == ["-qq", "tool"]
    assert capsys.readouterr() == ("installing tool (a minute or two)\nTool: here\n", "")


def test_without_the_right_to_install_the_message_says_how(
    asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    missing = [f"No {name}: apt-get install {name}" for name in ("tool", "another")]
    monkeypatch.setattr(command, "find_servers", lambda _servers: ([], missing))

    with pytest.raises(SystemExit, match="this installs all of it: sudo apt-get install another tool"):
        command.main()
    assert asked == []


def test_what_apt_get_says_is_shown_if_it_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = subprocess.CompletedProcess(["apt-get"], 100, "", "E: no such package")
    monkeypatch.setattr(subprocess, "run", lambda *_words, **_options: failed)

    debian_packages.install(["tool"])

    assert "E: no such package" in capsys.readouterr().err
