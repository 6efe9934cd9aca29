"""What was aimed at, and whether it was met: the first table of the page."""

from functools import partial

from .peer import AT_LEAST_ONCE, CONFIRMED
from .results import COMPARISON, INCUMBENT, OURS, TITLES, Figure, Results, ratio


def aims(runs: list[Results]) -> list[list[str]]:
    """Return a row for each aim that these runs measured: what, the figure, the aim, whether it was met."""
    return [row for run in runs for check in CHECKS if (row := check(run)) is not None]


def peers(run: Results, broker: str, name: str, *, at_least_once: bool = False) -> list[Figure]:
    """The figures of all peers; those that do nothing, and the incumbent where at most once, apart."""
    kept = [
        one.library
        for one in run.subjects
        if one.broker == broker
        and not one.library.startswith(OURS)
        and not one.library.startswith("bare ")
        and (not at_least_once or one.guarantee == AT_LEAST_ONCE)
    ]
    return [found for one in kept if (found := run.find(COMPARISON, broker, one, name))]


def against_best(
    run: Results,
    broker: str,
    ours: str,
    theirs: list[Figure],
    wanted: float,
    what: str,
    library: str = OURS,
) -> list[str] | None:
    mine = run.find(COMPARISON, broker, library, ours)
    if mine is None or not theirs:
        return None
    best = max(theirs, key=lambda one: one.median)
    found = ratio(mine, best)
    return [f"{what} ({best.library})", f"{found:.1f}", f"≥ {wanted:g}", "yes" if found >= wanted else "no"]


def redis_drain(run: Results) -> list[str] | None:
    theirs = peers(run, "redis", "drain", at_least_once=True)
    return against_best(run, "redis", "drain", theirs, 15, "Redis: drain, of the best at-least-once peer")


def redis_incumbent(run: Results) -> list[str] | None:
    theirs = [one for one in peers(run, "redis", "drain") if one.library == INCUMBENT]
    return against_best(run, "redis", "drain", theirs, 3, "Redis: drain, of the incumbent, at most once")


def redis_batch(run: Results) -> list[str] | None:
    theirs = peers(run, "redis", "publish") + peers(run, "redis", "publish_batch")
    return against_best(run, "redis", "publish_batch", theirs, 4, "Redis: batch publish, of the best peer")


def limit(broker: str, library: str, name: str, wanted: float, what: str, run: Results) -> list[str] | None:
    mine, bare = (run.find("limit", broker, one, name) for one in (library, "bare"))
    if mine is None or bare is None:
        return None
    return beside(what, mine, bare, wanted)


def beside(what: str, one: Figure, other: Figure, wanted: float) -> list[str]:
    found = ratio(one, other)
    return [what, f"{found:.2f}", f"≥ {wanted:g}", "yes" if found >= wanted else "no"]


def rabbitmq_drain(run: Results) -> list[str] | None:
    return against_best(
        run, "rabbitmq", "drain", peers(run, "rabbitmq", "drain"), 4, "RabbitMQ: drain, of the best peer"
    )


def rabbitmq_batch(run: Results) -> list[str] | None:
    theirs = peers(run, "rabbitmq", "publish") + peers(run, "rabbitmq", "publish_batch")
    confirmed = {one.library for one in run.subjects if CONFIRMED in one.settings}
    theirs = [one for one in theirs if one.library in confirmed]
    what = "RabbitMQ: confirmed batch publish, of the best confirmed peer"
    return against_best(run, "rabbitmq", "publish_batch", theirs, 10, what)


def postgresql_batch(run: Results) -> list[str] | None:
    theirs = peers(run, "postgresql", "publish") + peers(run, "postgresql", "publish_batch")
    what = "PostgreSQL: batch publish, of the best peer"
    return against_best(run, "postgresql", "publish_batch", theirs, 3, what)


def postgresql_drain(run: Results) -> list[str] | None:
    what = "PostgreSQL: drain, of the best peer"
    return against_best(run, "postgresql", "drain", peers(run, "postgresql", "drain"), 3, what)


def postgresql_waits(run: Results) -> list[str] | None:
    theirs = peers(run, "postgresql", "drain_wait")
    what = "PostgreSQL: drain of 1 ms jobs, 100 at once, of the best peer"
    return against_best(run, "postgresql", "drain_wait", theirs, 2, what, library=f"{OURS}, 100 at once")


def postgresql_backlog(run: Results) -> list[str] | None:
    few, many = (run.find("backlog", "postgresql", OURS, size) for size in ("10000", "1000000"))
    if few is None or many is None:
        return None
    return beside("PostgreSQL: drain with 1,000,000 jobs waiting, of that with 10,000", many, few, 0.8)


def local(run: Results) -> list[str] | None:
    theirs = [one for one in peers(run, "memory", "drain") if one.library == INCUMBENT]
    return against_best(run, "memory", "drain", theirs, 100, "Local: drain, of the incumbent's Local")


def latency(broker: str, run: Results, *, queue_type: str = "") -> list[str] | None:
    """Beside all peers or, where there are several types of queues, those whose queues are of this type."""
    alike = [one.library for one in run.subjects if one.broker == broker and queue_type in one.settings]
    ours = next((one for one in alike if one.startswith(OURS)), OURS)
    mine = run.find(COMPARISON, broker, ours, "latency_p50")
    theirs = [one for one in peers(run, broker, "latency_p50") if one.library in alike]
    if mine is None or not theirs:
        return None
    best = min(theirs, key=lambda one: one.median)
    where = f" on a {queue_type}" if queue_type else ""
    return [
        f"{TITLES[broker]}: idle latency p50{where}, beside the lowest peer's there ({best.library})",
        f"{mine.median:.2f} ms, {best.median:.2f} ms",
        "the lowest",
        "yes" if mine.median < best.median else "no",
    ]


CHECKS = (
    redis_drain,
    redis_incumbent,
    redis_batch,
    partial(
        limit,
        "redis",
        "port",
        "drain 250",
        0.5,
        "Redis: drain through the port, of the bare script (250 at once)",
    ),
    partial(latency, "redis"),
    rabbitmq_drain,
    rabbitmq_batch,
    partial(latency, "rabbitmq", queue_type="quorum queue"),
    partial(latency, "rabbitmq", queue_type="classic queue"),
    postgresql_batch,
    postgresql_drain,
    postgresql_waits,
    partial(latency, "postgresql"),
    postgresql_backlog,
    partial(
        limit,
        "rabbitmq",
        "application",
        "drain 1",
        1.0,
        "RabbitMQ: a consumer with a prefetch of 1, of a bare BlockingConnection",
    ),
    local,
)
