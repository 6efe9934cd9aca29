"""What a waiting job takes in the broker."""

import sys
from collections.abc import Sequence

from redis import Redis

from ..contenders import Contender, running
from ..results import Results

JOBS = 5_000


def measure(results: Results, contenders: Sequence[Contender], urls: dict[str, str], scale: float) -> None:
    """On Redis, by its own account of its memory, before and after."""
    jobs = int(JOBS * scale)
    for contender in contenders:
        if contender.broker != "redis":
            continue
        with running(contender, urls["redis"], f"bench-memory-{contender.peer.replace('_', '-')}") as one:
            one.ask("publish", kind="no_op", count=20)
            before = used(urls["redis"])
            step = "publish_batch" if one.traits["has_batches"] else "publish"
            one.ask(step, kind="no_op", count=jobs)
            each = (used(urls["redis"]) - before) / jobs
            results.introduce(one.subject)
            results.add("memory", "redis", one.subject.library, "waiting job", "bytes", each)
        with Redis.from_url(urls["redis"]) as server:
            server.flushall()  # a server of our own
        print(f"memory {contender.peer}", file=sys.stderr)


def used(url: str) -> int:
    with Redis.from_url(url) as server:
        return server.info("memory")["used_memory_dataset"]
