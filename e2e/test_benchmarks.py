"""The benchmark runs: its own side and the bare clients, at next to nothing."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


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
    assert drained == {("memory", "this project"), ("redis", "this project"), ("redis", "bare Lua")}
    assert "| this project |" in page.read_text("utf-8")


def _benchmarks(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
