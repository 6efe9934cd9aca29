"""The benchmark runs: its own side and the bare clients, at next to nothing."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from brokers.fixtures import StartRedis
from conditions import LIMIT_S

ROOT = Path(__file__).parents[1]


@pytest.mark.long
def test_the_benchmark_measures_this_project_and_the_bare_client(tmp_path: Path) -> None:
    """A run in which no other library takes part gives figures of both, and the report takes them."""
    out, page = tmp_path / "results.json", tmp_path / "benchmarks.md"
    size = ("--rounds", "1", "--scale", "0.01", "--backlogs", "1000")
    words = (
        "run",
        "--broker",
        "memory",
        "--broker",
        "redis",
        "--peer",
        "ours",
        "--peer",
        "bare_redis",
        *size,
    )

    _benchmarks(*words, "--out", str(out))
    _benchmarks("report", str(out), "--page", str(page))

    figures = json.loads(out.read_text("utf-8"))["figures"]
    drained = {(one["broker"], one["library"]) for one in figures if one["name"] == "drain" and one["values"]}
    assert drained == {
        ("memory", "this project"),
        ("memory", "this project, 100 at once"),
        ("redis", "this project"),
        ("redis", "this project, 100 at once"),
        ("redis", "bare Lua"),
    }
    waited = {one["broker"]: one["values"] for one in figures if one["name"] == "latency_p50"}
    assert waited.keys() == {"memory", "redis"}
    assert all(value > 0 for values in waited.values() for value in values)
    assert "| this project |" in page.read_text("utf-8")


@pytest.mark.long
def test_this_tree_is_measured_beside_another(
    private_redis: StartRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other is this tree itself, too. Neither takes the other's jobs, though they share the broker."""
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.compare_trees import compare

    measures = compare("redis", private_redis().url, sys.prefix, 2)

    assert measures.keys() == {"publish", "publish_batch", "drain", "latency"}
    assert all(figure > 0 for figures in measures.values() for figure in figures)


def test_a_round_that_a_peer_failed_is_noted_and_run_again_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the round that failed nothing is kept; where it was ours, the run ends."""
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.contenders import Contender
    from benchmarks.results import Results, Subject
    from benchmarks.scenarios import comparison

    results = Results({}, 1)
    subject = Subject("redis", "Peer", "at least once", "", {}, "")
    played: list[str] = []

    @contextmanager
    def running(_contender: object, _url: str, queue: str) -> Iterator[object]:
        played.append(queue)
        yield SimpleNamespace(subject=subject)

    def run_steps(_contender: object, _one: object, _scale: float, note: Any) -> None:
        note("publish", "jobs/s", float(len(played)))
        if len(played) == 1:
            raise RuntimeError("its worker ended\nand much more")

    monkeypatch.setattr(comparison, "running", running)
    monkeypatch.setattr(comparison, "run_steps", run_steps)
    peer = Contender("redis", "peer", "peer", 1, 1, 1)

    comparison.run_round(results, peer, "redis://", 0, 1.0)

    assert played == ["bench-redis-peer-0", "bench-redis-peer-0-again"]
    assert results.failures == ["redis peer, round 1: its worker ended"]
    assert [figure.values for figure in results.figures] == [[2.0]]
    played.clear()
    with pytest.raises(RuntimeError, match="its worker ended"):
        comparison.run_round(results, replace(peer, environment=None), "redis://", 0, 1.0)


def test_a_peer_that_fails_while_it_waits_is_noted_and_costs_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those that are slow are asked once a round; where ours fails, the run ends."""
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.contenders import Contender
    from benchmarks.results import Results, Subject
    from benchmarks.scenarios import latency

    class Running:
        """One whose jobs take so long; with none given, its worker ends in the second turn."""

        traits: ClassVar = {"wakes": True}

        def __init__(self, name: str, took_ms: float | None) -> None:
            self.subject = Subject("redis", name, "at least once", "", {}, "")
            self._took_ms = took_ms
            self.turns = 0

        def ask(self, step: str, **arguments: Any) -> list[float]:
            if step != "latency":
                return []
            self.turns += 1
            if self._took_ms is None and self.turns > 1:
                raise RuntimeError("its worker ended\nand much more")
            return [self._took_ms or 1.0] * arguments["count"]

        def start_worker(self) -> None: ...

        def wait_for(self, _kind: str, _number: int) -> None: ...

    made = {"quick": Running("quick", 0.5), "slow": Running("slow", 300.0), "weak": Running("weak", None)}

    @contextmanager
    def running(contender: Contender, _url: str, _queue: str) -> Iterator[Running]:
        yield made[contender.peer]

    monkeypatch.setattr(latency, "running", running)
    peers = [Contender("redis", name, name, 10, 0, 0) for name in made]
    results = Results({}, 2)

    latency.measure(results, peers, {"redis": "redis://"}, rounds=2, scale=0.2)

    medians = {one.library: one.values for one in results.figures if one.name == "latency_p50"}
    assert medians == {"quick": [0.5, 0.5], "slow": [300.0, 300.0]}
    assert (made["quick"].turns, made["slow"].turns) == (2 * int(latency.TURNS * 0.2), 2)
    assert results.failures == ["redis weak, idle latency, left out: its worker ended"]
    with pytest.raises(RuntimeError, match="its worker ended"):
        latency.measure(results, [replace(peers[2], environment=None)], {"redis": "redis://"}, 1, 1.0)


def _benchmarks(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
