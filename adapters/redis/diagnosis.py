"""What a server's own account of itself says about the jobs in it."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from ...domain.errors import AccessDenied, JobsError
from ...domain.queue import QueueKind
from ...domain.wording import quantity
from ...ports import Durability, Finding
from ...ports.findings import doubtful, good, wrong
from ..shared.records import parse_queue
from ..shared.server_settings import is_loopback
from .admin import find_queues
from .errors import ServerUnreachable
from .keys import QueueKeys
from .scripts import DENIED_COMMANDS, INSPECT
from .settings import DURABILITIES
from .transport import RetryingConnection, as_text

_SKEW_S = 5.0
_NEARLY = 0.9
_LONGEST_LEASE_H = 2.0
_NEEDED = """
    INFO, EVAL x 0, EVALSHA x 0, XREAD COUNT 1 BLOCK 1 STREAMS KEY 0, TIME, GET KEY, SET KEY x, UNLINK KEY,
    PEXPIRE KEY 1, PTTL KEY, PERSIST KEY, EXISTS KEY, TYPE KEY, HGET KEY x, HGETALL KEY, HSET KEY x x,
    HSETNX KEY x x, HMGET KEY x, HDEL KEY x, HEXISTS KEY x, HLEN KEY, LLEN KEY, LPOP KEY, LPUSH KEY x,
    RPUSH KEY x, LTRIM KEY 0 0, LPOS KEY x, LRANGE KEY 0 0, ZADD KEY 1 x, ZCARD KEY, ZCOUNT KEY 0 1,
    ZRANGE KEY 0 1, ZREM KEY x, ZPOPMIN KEY, ZMSCORE KEY x, XADD KEY * x x, XREVRANGE KEY + -
"""
"""The commands of a worker and a publisher; the same as in the line of ``docs/redis.md``."""


def diagnose(
    redis: RetryingConnection, namespace: str, declared: Durability, layout: str, address: str
) -> list[Finding]:
    """Look at a server that can be reached, as far as the user may.

    Args:
        redis: The connection to it.
        namespace: Whose queues to look at.
        declared: What the client says that the server survives.
        layout: The layout of queues that this release knows.
        address: ``redis://host`` or ``rediss://host``, for what can be seen from outside; without a host, if
            Sentinels name the server.
    """
    findings: list[Finding] = []
    try:
        before_s = time.time()
        seconds, micros = redis.command("TIME")
        after_s = time.time()
        info: Mapping[str, Any] = redis.command("INFO")
        settings = _Settings(redis)
        findings += _server(info, address)
        findings += _memory(info)
        findings += _persistence(info, settings, declared)
        findings += _replicas(info, settings, by_sentinels=address.endswith("://"))
        findings.append(_clock(seconds + micros / 1e6, before_s, after_s))
        findings += _clients(info, settings)
        findings.append(_permissions(redis, namespace))
        findings += _queues(redis, namespace, layout)
    except ServerUnreachable as out:
        findings.append(wrong("reachable", str(redis.unavailable(out)), "look at the server's log"))
    except JobsError as error:
        findings.append(wrong("access", str(error), "grant the line of docs/redis.md, Privileges"))
    return findings


class _Settings:
    """Settings of the server, where the user may read them."""

    def __init__(self, redis: RetryingConnection) -> None:
        self._redis = redis

    def read(self, name: str) -> str | None:
        try:
            answer = self._redis.command("CONFIG", "GET", name)
        except JobsError:
            return None
        pairs = zip(answer[::2], answer[1::2], strict=True)
        return next((str(_text(value)) for key, value in pairs if _text(key) == name), None)


def _server(info: Mapping[str, Any], address: str) -> Iterator[Finding]:
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version", info.get("redis_version"))
    yield good("version", f"{name} {version}")
    if info.get("role") not in (None, "master"):
        yield wrong("role", "this is a replica: it takes no jobs", "connect to its master, or by Sentinel")
    scheme, _, host = address.partition("://")
    if scheme == "redis" and host and not is_loopback(host):
        yield doubtful(
            "encryption", f"jobs and password travel to {host} in plain text", "use rediss://, with TLS"
        )


def _memory(info: Mapping[str, Any]) -> Iterator[Finding]:
    limit, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    policy = str(info.get("maxmemory_policy", "noeviction"))
    remedy = "CONFIG SET maxmemory-policy noeviction, and in its configuration file"
    if policy.startswith("allkeys"):
        yield wrong("eviction", f"maxmemory-policy {policy} drops jobs once a maxmemory is reached", remedy)
    elif policy.startswith("volatile"):
        may_drop = "results, places and rates before their time, so that limits are exceeded"
        yield doubtful("eviction", f"maxmemory-policy {policy} may drop {may_drop}", remedy)
    else:
        yield good("eviction", policy)
    if not limit:
        yield doubtful(
            "memory",
            "no maxmemory: when the machine's memory is full, the server is killed",
            "CONFIG SET maxmemory, below what the machine has: publishers are then refused, workers go on",
        )
    elif used >= _NEARLY * limit:
        yield wrong(
            "memory", f"{used / limit:.0%} of maxmemory are used", "raise maxmemory, or drain the queues"
        )
    else:
        yield good("memory", f"{used / limit:.0%} of maxmemory are used")


def _persistence(info: Mapping[str, Any], settings: _Settings, declared: Durability) -> Iterator[Finding]:
    if info.get("rdb_last_bgsave_status") == "err" or info.get("aof_last_write_status") == "err":
        yield wrong("disk", "the last write to disk failed", "look at the server's log: is the disk full?")
    found = _durability(info, settings)
    if found is None:
        yield doubtful("persistence", "appendfsync and save can't be read", "grant +config|get for this look")
        return
    if DURABILITIES.index(found) < DURABILITIES.index(declared):
        yield wrong(
            "persistence",
            f"the client declares durability {declared.value!r}, the server keeps {found.value!r}",
            "CONFIG SET appendonly yes, and appendfsync as docs/redis.md says; or declare what there is",
        )
    elif found in (Durability.NONE, Durability.SNAPSHOT):
        lost = "every job" if found is Durability.NONE else "what came since its last snapshot"
        yield doubtful(
            "persistence",
            f"durability is {found.value!r}: if the server dies, {lost} is lost",
            "CONFIG SET appendonly yes, and in its configuration file",
        )
    else:
        yield good("persistence", f"durability is {found.value!r}")


def _durability(info: Mapping[str, Any], settings: _Settings) -> Durability | None:
    if info.get("aof_enabled"):
        fsync = settings.read("appendfsync")
        kept = {"always": Durability.FSYNC, "everysec": Durability.EVERY_SECOND, "no": Durability.SNAPSHOT}
        return None if fsync is None else kept[fsync]
    save = settings.read("save")
    if save is None:
        return None
    return Durability.SNAPSHOT if save else Durability.NONE


def _replicas(info: Mapping[str, Any], settings: _Settings, *, by_sentinels: bool) -> Iterator[Finding]:
    """Look whether a failover may lose what was confirmed while no replica got it."""
    connected = int(info.get("connected_slaves", 0))
    keep_up = info.get("min_slaves_good_slaves")  # it is there where min-replicas-to-write is set
    if info.get("role") != "master" or not (connected or by_sentinels or keep_up is not None):
        return
    if keep_up is None:
        yield doubtful(
            "replicas",
            f"{quantity(connected, 'replica')}: a failover loses what was confirmed before one got it",
            "CONFIG SET min-replicas-to-write 1, and in the configuration file of each server",
        )
        return
    needed = int(settings.read("min-replicas-to-write") or 1)
    if int(keep_up) < needed:
        yield wrong(
            "replicas",
            f"writes are refused: {keep_up} of {quantity(needed, 'replica')} that min-replicas-to-write "
            "asks for keep up",
            "start the replicas, or look why they lag",
        )
    else:
        yield good("replicas", f"{keep_up} of {connected} keep up, and writes need {needed}")


def _clock(server_s: float, before_s: float, after_s: float) -> Finding:
    skew_s = max(before_s - server_s, server_s - after_s, 0.0)
    if skew_s > _SKEW_S:
        return doubtful(
            "clock",
            f"the clocks of the server and of this machine are {skew_s:,.0f} s apart: a job with not_before "
            "is early or late by as much",
            "run NTP on both",
        )
    return good("clock", "agrees with this machine's")


def _clients(info: Mapping[str, Any], settings: _Settings) -> Iterator[Finding]:
    limit, connected = int(info.get("maxclients", 0)), int(info.get("connected_clients", 0))
    if limit and connected >= _NEARLY * limit:
        yield wrong("clients", f"{connected:,} of {limit:,} connections are taken", "CONFIG SET maxclients")
    timeout = settings.read("timeout")
    if timeout not in (None, "0") and int(timeout or 0) < 60:
        yield doubtful(
            "timeout",
            f"the server closes connections that are idle for {timeout} s: they are made anew each time",
            "CONFIG SET timeout 0, or some minutes",
        )


def _permissions(redis: RetryingConnection, namespace: str) -> Finding:
    keys = QueueKeys(namespace, "mindtrace-jobs.never-declared").of(DENIED_COMMANDS)
    needed = [command.strip() for command in _NEEDED.split(",")]
    try:
        denied = sorted(word.decode().lower() for word in redis.run(DENIED_COMMANDS, keys, needed))
    except AccessDenied as error:
        return wrong("permissions", str(error), "grant the line of docs/redis.md, Privileges")
    if denied:
        return wrong(
            "permissions",
            f"the user may not use {', '.join(denied)} on the keys of namespace {namespace!r}",
            f"ACL SETUSER … ~mtj:* {' '.join(f'+{word}' for word in denied)}",
        )
    return good("permissions", "the user may do all that is needed")


def _queues(redis: RetryingConnection, namespace: str, layout: str) -> Iterator[Finding]:
    try:
        found = find_queues(redis, namespace)
    except AccessDenied:
        yield doubtful("queues", "the user may not list them", "grant +scan for this look")
        return
    for name, kind in found:
        queue = parse_queue(as_text(name), as_text(kind))
        if queue is None:
            yield wrong(
                "queues",
                f"{as_text(name)!r} of kind {as_text(kind)!r} can't be a queue of ours",
                "look who wrote it; DEL its keys",
            )
            continue
        keys = QueueKeys(namespace, queue.name)
        made_by = redis.command("HGET", keys.meta, "layout")
        if made_by != layout.encode():
            yield wrong(
                "layout",
                f"queue {queue.name!r} has layout {as_text(made_by or b'unknown')}, of another release; "
                f"this one knows {layout}",
                "drain it with the release that made it, then delete it",
            )
        else:
            yield from _records(redis, keys, queue.kind)
    yield good("queues", f"{len(found)} in namespace {namespace!r}")


def _records(redis: RetryingConnection, keys: QueueKeys, kind: QueueKind) -> Iterator[Finding]:
    """What is damaged in a queue, as far as that can be seen without reading all of it."""
    names, types = keys.of(INSPECT), [keys.types(kind)[name] for name in INSPECT.keys]
    wrong_keys, bodies, standing = redis.run(INSPECT, names, types)
    for key, found in zip(map(as_text, wrong_keys[::2]), map(as_text, wrong_keys[1::2]), strict=True):
        yield wrong(
            "records",
            f"queue {keys.queue!r}: its key {key} is a {found}, and should be a {types[names.index(key)]}",
            "look who wrote it, and RENAME it; what the queue kept there is gone",
        )
    if bodies > standing:
        yield wrong(
            "records",
            f"queue {keys.queue!r}: {quantity(bodies - standing, 'job')} with a body but no place",
            f"look for them with HSCAN {keys.body}, and publish them again",
        )
    if bodies < standing:
        yield doubtful(
            "records",
            f"queue {keys.queue!r}: {quantity(standing - bodies, 'entry', 'entries')} without a job",
            "workers drop them, and log the id of each",
        )
    if not wrong_keys:
        yield from _leases(redis, keys)


def _leases(redis: RetryingConnection, keys: QueueKeys) -> Iterator[Finding]:
    """Whether a lease ends much later than leases do: the server's clock was set back since it began."""
    last = ("(+inf", "-inf", "BYSCORE", "REV", "LIMIT", "0", "1", "WITHSCORES")
    latest = redis.command("ZRANGE", keys.run, *last)
    seconds, _ = redis.command("TIME")
    hours = (float(latest[1]) / 1000 - seconds) / 3600 if latest else 0.0
    if hours > _LONGEST_LEASE_H:
        yield doubtful(
            "leases",
            f"queue {keys.queue!r}: a lease ends only in {hours:,.0f} hours, perhaps as the server's clock "
            "was set back",
            "set the clock right, and run NTP; or restart its worker properly, so that it releases its jobs",
        )


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
