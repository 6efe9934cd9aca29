"""The page of results: tables, the ratios that were promised, and where the plots stand."""

from collections.abc import Iterable
from pathlib import Path

from .aims import aims
from .results import COMPARISON, HELD, OURS, TITLES, Figure, Results, ratio
from .scenarios.many_waiting import CONCURRENCY, WAIT_S

COLUMNS = {
    "publish": ("one by one", "jobs/s"),
    "publish_batch": ("in a batch", "jobs/s"),
    "drain": ("drain, no-op", "jobs/s"),
    "drain_wait": ("drain, 1 ms", "jobs/s"),
    "drain_spin": ("drain, CPU", "jobs/s"),
    "latency_p50": ("latency p50", "ms"),
    "latency_p99": ("p99", "ms"),
    "start": ("start", "s"),
    "memory": ("worker", "MiB"),
    "idle_cpu": ("idle CPU", "%"),
}
WEB = {
    "rate": "posts/s",
    "p50": "p50, ms",
    "p99": "p99, ms",
    "cpu": "CPU of a post, ms",
    "ceiling": "pings/s without posts",
    "ping p99": "ping p99, ms",
    "ping p99, away": "broker away: ping p99, ms",
    "longest ping, away": "longest, ms",
}
HELD_TOLD = """## While a snapshot is held

A server for each library: how fast one worker drains before and after another session has held a
`REPEATABLE READ` transaction for some minutes, as a backup does, while jobs flow. PostgreSQL
keeps all rows that die meanwhile.

"""
WEB_TOLD = """## In a web service

FastAPI in one process of uvicorn, the same for all but for the library that publishes: this project's
`AsyncOrchestrator`, or a peer, opened once. Once it is up, `gc.freeze()` exempts what was imported from
garbage collection, which would stop the loop for tens of milliseconds. 32 connections *post*: each sends a
job, waits for its id, and sends the next. Meanwhile 8 more *ping*, a route that doesn't publish, each ten
times a second; so they do when the broker is killed. A ping that is due while the one before is unanswered
counts from when it was due. How fast the service itself is show the 32 connections when they ping without
pause. Without a broker, a post of this project fails after 5 s or more; those of the others fail at once and
come again after 0.1 s.

"""
INTRODUCTION = """# The field, side by side

Written by `make bench-report` from the results of `make bench-full`. All figures of a broker are of one
run: one machine, one server started for it alone, the same jobs, every library in turn, one round after the
other. Each is the median of its rounds, each ratio the median of the rounds' ratios. Figures of other runs
or machines are not to be compared with them; ratios are.

A job carries two floats. *1 ms* sleeps, or awaits, for a millisecond, so that a library which runs many at
once does more of them; *CPU* is a sum that takes a processor about a millisecond. Rates are from the
beginning of the first job to the beginning of the last, in one worker process. *Start* is from starting a
worker's process to its first job. *Latency* is from the publish call to the beginning of the handler, on an
idle worker; here the workers of all are idle at once, and their publishers take short turns, since a
machine's mood changes from one minute to the next. A quorum queue of RabbitMQ delivers a job once it is on
disk, a classic one before; so each kind is held against its own. This project's queues are quorum queues,
but for those with priorities. Redis keeps nothing on disk, for all alike; PostgreSQL syncs each commit
(`synchronous_commit=on`), for all alike. The plots' whiskers say how far the rounds lie apart.
"""


def write(runs: list[Results], page: Path) -> None:
    """Write the page for runs of different brokers."""
    parts = [INTRODUCTION, "## What was aimed at\n", table(["", "measured", "wanted", "met"], aims(runs))]
    for run in runs:
        for broker, title in TITLES.items():
            if any(one.broker == broker for one in run.subjects):
                parts += [f"## {title}\n", comparison(run, broker), guarantees(run, broker)]
                plot = page.parent / "benchmarks" / f"{broker}.png"
                if plot.exists():
                    parts.append(f"![{title}: publishing, draining, latency](benchmarks/{broker}.png)\n")
                parts.append(limits(run, broker))
    sections = (concurrent, many_waiting, web, backlogs, held, memory, failures, machine)
    parts += [section(runs) for section in sections]
    page.write_text("\n".join(part for part in parts if part), "utf-8")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---", *("--:" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def shown(figure: Figure | None) -> str:
    if figure is None:
        return ""
    value = figure.median
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def comparison(run: Results, broker: str) -> str:
    libraries = [one.library for one in run.subjects if one.broker == broker]
    names = [name for name in COLUMNS if any(run.find(COMPARISON, broker, one, name) for one in libraries)]
    head = ["", *(f"{COLUMNS[name][0]}, {COLUMNS[name][1]}" for name in names)]
    rows = [[one, *(shown(run.find(COMPARISON, broker, one, name)) for name in names)] for one in libraries]
    return table(head, rows)


def guarantees(run: Results, broker: str) -> str:
    rows = [
        [
            one.library,
            one.guarantee,
            one.settings,
            ", ".join(f"{name} {number}" for name, number in one.versions.items()) + f"; Python {one.python}",
        ]
        for one in run.subjects
        if one.broker == broker
    ]
    return table(["", "a job runs", "settings", "versions"], rows)


def limits(run: Results, broker: str) -> str:
    found = [one for one in run.figures if one.scenario == "limit" and one.broker == broker]
    rows = []
    for one in found:
        if one.library == "bare":
            continue
        bare = run.find("limit", broker, "bare", one.name) or run.find("limit", broker, "bare", "drain 250")
        if one.name == "drain adaptive":
            bare = run.find("limit", broker, "bare", "drain 250")
        if bare is None:
            bare = run.find("limit", broker, "bare", "drain 200")
        rows.append([f"{one.library}, {one.name}", shown(one), shown(bare), f"{ratio(one, bare):.2f}"])
    if not rows:
        return ""
    return "Against the bare client, in one process, by turns (batches in jobs):\n\n" + table(
        ["", "jobs/s", "bare, jobs/s", "ratio"], rows
    )


def concurrent(runs: list[Results]) -> str:
    found = [(run, one) for run in runs for one in run.figures if one.scenario == "concurrent"]
    rows = []
    for run, one in found:
        alone = run.find("concurrent", one.broker, one.library, "one")
        times = f"{ratio(one, alone):.1f}" if alone and one.unit == "jobs/s" else ""
        rows.append([f"{TITLES[one.broker]}, {one.name}", f"{shown(one)} {one.unit}", times])
    if not rows:
        return ""
    told = (
        "## Many publishers at once\n\n"
        "This project: 64 threads, or tasks, that each publish job after job and wait for each confirm, "
        "beside *one* alone; and the event loop's longest *pause* and longest *step* (CPU of one callback) "
        "meanwhile, and while the broker is away or a black hole.\n\n"
    )
    return told + table(["", "measured", "times one"], rows)


def many_waiting(runs: list[Results]) -> str:
    found = [one for run in runs for one in run.figures if one.scenario == "many waiting"]
    ideal = CONCURRENCY / WAIT_S
    rows = [
        [f"{TITLES[one.broker]}, {one.name}", f"{shown(one)} {one.unit}", f"{one.median / ideal:.2f}"]
        for one in found
    ]
    if not rows:
        return ""
    told = (
        "## A thousand waits at once\n\n"
        f"This project: one consumer with `concurrency = {CONCURRENCY}`, whose handler waits "
        f"{WAIT_S * 1000:g} ms, on asyncio's own event loop and on uvloop's. At best it runs "
        f"{ideal:,.0f} jobs a second.\n\n"
    )
    return told + table(["", "measured", "of the best"], rows)


def web(runs: list[Results]) -> str:
    found = [(run, one) for run in runs for one in run.figures if one.scenario == "web"]
    where = {(one.broker, one.library): run for run, one in found}
    rows = [
        [f"{TITLES[broker]}, {library}", *(shown(run.find("web", broker, library, name)) for name in WEB)]
        for (broker, library), run in where.items()
    ]
    if not rows:
        return ""
    return WEB_TOLD + table(["", *WEB.values()], rows)


def backlogs(runs: list[Results]) -> str:
    found = [(run, one) for run in runs for one in run.figures if one.scenario == "backlog"]
    if not found:
        return ""
    sizes = sorted({int(one.name) for _, one in found})
    where = dict.fromkeys((one.broker, number) for number, run in enumerate(runs) for one in run.figures)
    rows = [
        [TITLES[broker], *(shown(runs[number].find("backlog", broker, OURS, str(size))) for size in sizes)]
        for broker, number in where
        if runs[number].find("backlog", broker, OURS, str(sizes[0]))
    ]
    told = "## By how many jobs wait\n\nThis project: jobs/s of a new consumer's first 900.\n\n"
    return told + table(["", *(f"{size:,}" for size in sizes)], rows)


def held(runs: list[Results]) -> str:
    names = {
        "before": "before, jobs/s",
        "after": "at the end, jobs/s",
        "ratio": "ratio",
        "jobs": "jobs meanwhile",
    }
    rows = [
        [one.library, *(shown(run.find(HELD, one.broker, one.library, name)) for name in names)]
        for run in runs
        for one in run.figures
        if one.scenario == HELD and one.name == "before"
    ]
    if not rows:
        return ""
    return HELD_TOLD + table(["", *names.values()], rows)


def memory(runs: list[Results]) -> str:
    rows = [[one.library, shown(one)] for run in runs for one in run.figures if one.scenario == "memory"]
    if not rows:
        return ""
    return "## Memory of a waiting job\n\nIn Redis, by its own account.\n\n" + table(["", "bytes"], rows)


def failures(runs: list[Results]) -> str:
    found = [f"- {one}" for run in runs for one in run.failures]
    if not found:
        return ""
    return "## What failed\n\nThese rounds of others were run again.\n\n" + "\n".join(found) + "\n"


def machine(runs: list[Results]) -> str:
    found = {name: value for run in runs for name, value in run.machine.items()}
    lines = [f"- {name}: {value}" for name, value in found.items()]
    rounds = ", ".join(dict.fromkeys(str(run.rounds) for run in runs))
    return "## Where it ran\n\n" + "\n".join([*lines, f"- rounds: {rounds}"]) + "\n"
