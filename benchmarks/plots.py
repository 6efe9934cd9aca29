"""The plots of a run: ``python -m benchmarks.plots RESULTS…``, in the environment that has matplotlib."""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter

from .results import COMPARISON, OURS, TITLES, Figure, Results

PANELS = {
    "publish": "published one by one, jobs/s",
    "publish_batch": "published in a batch, jobs/s",
    "drain": "drained, no-op jobs, jobs/s",
    "latency_p50": "idle latency p50, ms",
}
PLOTTED = ("sqlite", "redis", "rabbitmq", "postgresql")
COLOURS = {"ours": "#1f6f8b", "bare": "#b8b8b8", "peer": "#e0a458"}


def colour(library: str) -> str:
    if library.startswith(OURS):
        return COLOURS["ours"]
    return COLOURS["bare" if library.startswith("bare ") else "peer"]


def panel(axes: "plt.Axes", title: str, found: list[Figure], lowest_first: bool) -> None:
    found = sorted(found, key=lambda one: one.median, reverse=lowest_first)
    values = [one.median for one in found]
    axes.barh([one.library for one in found], values, color=[colour(one.library) for one in found])
    least = [one.median - min(one.values) for one in found]
    most = [max(one.values) - one.median for one in found]
    axes.errorbar(values, range(len(found)), xerr=[least, most], fmt="none", ecolor="#444444", elinewidth=0.8)
    for place, one in enumerate(found):
        label = f"{one.median:,.0f}" if one.median >= 100 else f"{one.median:.2f}"
        axes.text(max(one.values) * 1.15, place, label, fontsize=8, va="center")
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(right=max(max(one.values) for one in found) * 4)
    axes.set_title(title, fontsize=10, loc="left")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def draw(results: Results, broker: str, path: Path) -> None:
    figure, grid = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    for axes, (name, title) in zip(grid.flat, PANELS.items(), strict=True):
        found = [
            one
            for one in results.figures
            if (one.scenario, one.broker, one.name) == (COMPARISON, broker, name)
        ]
        if found:
            panel(axes, title, found, lowest_first=name.startswith("latency"))
    figure.suptitle(
        f"{TITLES[broker]}: medians of {results.rounds} rounds; whiskers, all of them; logarithmic"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    for words in sys.argv[1:]:
        run = Results.read(Path(words))
        for name in PLOTTED:
            if any(subject.broker == name for subject in run.subjects):
                draw(run, name, Path("docs/benchmarks") / f"{name}.png")
