"""The doctor finds what is wrong with a real broker: each fault is planted in one of its own.

Those of a SQLite file are planted in ``tests/adapters/sqlite/test_diagnosis.py``.
"""

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brokers.fixtures import StartRabbitMQ, StartRedis
from brokers.private_server import free_port
from brokers.redis_server import PrivateRedis
from conditions import LIMIT_S, eventually
from mindtrace.jobs import Finding, Orchestrator, Queue, QueueKind, SQLiteClient, Verdict
from mindtrace.jobs.adapters.redis import diagnosis
from mindtrace.jobs.adapters.redis.transport import on_connect
from mindtrace.jobs.cli.main import run
from mindtrace.jobs.domain.errors import BrokerUnsuitable
from mindtrace.jobs.ports import Durability, Message

GOOD, DOUBTFUL, WRONG = Verdict.GOOD, Verdict.DOUBTFUL, Verdict.WRONG

Ask = Callable[..., dict[str, dict[str, str]]]

TASKS = """
from mindtrace.jobs import Consumer, JobInput, JobSchema

class Inspector(Consumer):
    schema = JobSchema(name="inspect", input=JobInput)
    def run(self, job): ...

class InOrder(Inspector):
    queue_type = "fifo"
"""

SOUND = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory": "100mb",
    "maxmemory_policy": "noeviction",
}


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Ask:
    """Ask the doctor about a URL; by subject, whatever is worst of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINDTRACE_JOBS_BACKEND", raising=False)
    tmp_path.joinpath("tasks.py").write_text(TASKS, "utf-8")
    monkeypatch.delitem(__import__("sys").modules, "tasks", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))

    def call(url: str, *words: str) -> dict[str, dict[str, str]]:
        code = run(["doctor", "--json", "-b", url, *words])
        out, err = capfd.readouterr()
        assert err == ""
        assert "swordfish" not in out
        findings: list[dict[str, str]] = json.loads(out)
        assert all(bool(finding["remedy"]) == (finding["verdict"] != GOOD) for finding in findings)
        assert code == any(finding["verdict"] == WRONG for finding in findings)
        order = [GOOD.value, DOUBTFUL.value, WRONG.value]
        return {
            finding["subject"]: finding
            for finding in sorted(findings, key=lambda finding: order.index(finding["verdict"]))
        }

    return call


def test_a_server_that_is_set_up_well_has_nothing_to_mend(ask: Ask, private_redis: StartRedis) -> None:
    """And is the same after as before."""
    server = private_redis(**SOUND)
    findings = ask(server.url, "tasks:Inspector")

    assert {finding["verdict"] for finding in findings.values()} == {GOOD}
    assert findings.keys() >= {
        "adapter",
        "reachable",
        "version",
        "eviction",
        "memory",
        "persistence",
        "clock",
        "permissions",
        "queues",
        "consumer",
        "queue",
    }
    with server.admin() as admin:
        assert admin.keys() == []


PLANTED: dict[str, tuple[dict[str, Any], str, Verdict, str]] = {
    "jobs dropped when memory is full": (
        {"maxmemory_policy": "allkeys-lru"},
        "broker",
        WRONG,
        "would drop jobs",
    ),
    "jobs dropped, once there is a limit": (
        {"maxmemory_policy": "allkeys-lru", "maxmemory": "0"},
        "eviction",
        WRONG,
        "drops jobs once a maxmemory is reached",
    ),
    "results dropped early": ({"maxmemory_policy": "volatile-lru"}, "eviction", DOUBTFUL, "may drop results"),
    "limits exceeded": ({"maxmemory_policy": "volatile-ttl"}, "eviction", DOUBTFUL, "limits are exceeded"),
    "no limit of memory": ({"maxmemory": "0"}, "memory", DOUBTFUL, "no maxmemory"),
    "no memory left": ({"maxmemory": "1kb"}, "memory", WRONG, "of maxmemory are used"),
    "nothing kept": ({"appendonly": "no"}, "persistence", DOUBTFUL, "every job is lost"),
    "snapshots only": (
        {"appendonly": "no", "save": "3600 1"},
        "persistence",
        DOUBTFUL,
        "since its last snapshot",
    ),
    "a log that is never synced": ({"appendfsync": "no"}, "persistence", DOUBTFUL, "snapshot"),
    "idle connections closed": ({"timeout": 3}, "timeout", DOUBTFUL, "idle for 3 s"),
    "a replica": (
        {"replicaof": "127.0.0.1 1", "replica_serve_stale_data": "yes"},
        "role",
        WRONG,
        "takes no jobs",
    ),
}


@pytest.mark.parametrize(("options", "subject", "verdict", "what"), PLANTED.values(), ids=PLANTED)
def test_a_misconfiguration_is_found(
    ask: Ask,
    private_redis: StartRedis,
    options: dict[str, Any],
    subject: str,
    verdict: Verdict,
    what: str,
) -> None:
    """With its mend."""
    finding = ask(private_redis(**(SOUND | options)).url)[subject]

    assert finding["verdict"] == verdict
    assert what in finding["what"]


def test_connections_that_are_nearly_used_up_are_found(ask: Ask, private_redis: StartRedis) -> None:
    server = private_redis(**SOUND)
    with server.admin() as admin:
        eventually(lambda: admin.info("clients")["connected_clients"] == 1, "no other is left")
        admin.config_set("maxclients", 2)
        finding = ask(server.url)["clients"]

    assert (finding["verdict"], "2 of 2 connections" in finding["what"]) == (WRONG, True)


def test_a_failover_that_would_lose_jobs_is_found(ask: Ask, private_redis: StartRedis) -> None:
    """Without min-replicas-to-write a server confirms jobs that no replica has got."""
    server = private_redis(**SOUND)
    assert "replicas" not in ask(server.url)
    replica = private_redis(config=f"replicaof 127.0.0.1 {server.address.port}\n")
    with server.admin() as admin:
        eventually(lambda: admin.info("replication")["connected_slaves"] == 1, "the replica is there")
        assert ask(server.url)["replicas"]["verdict"] == DOUBTFUL
        admin.config_set("min-replicas-to-write", 1)
        eventually(lambda: ask(server.url)["replicas"]["verdict"] == GOOD, "the replica keeps up")
        replica.kill()
        eventually(lambda: admin.info("replication")["connected_slaves"] == 0, "the replica is gone")
        finding = ask(server.url)["replicas"]

    assert (finding["verdict"], "0 of 1 replica" in finding["what"]) == (WRONG, True)


def test_a_node_of_a_cluster_is_found_and_refused(ask: Ask, private_redis: StartRedis) -> None:
    """It could serve until the first slot moves; so the doctor and a declaration say at once what to use."""
    server = private_redis(cluster_enabled="yes", cluster_port=free_port(), maxmemory="100mb")
    with server.admin() as admin:
        admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        state = lambda: str(admin.execute_command("CLUSTER", "INFO"))  # noqa: E731
        eventually(lambda: "cluster_state:ok" in state(), "the cluster is up")

    finding = ask(server.url)["broker"]
    assert finding["verdict"] == WRONG
    assert "cluster mode" in finding["what"]
    with server.client() as client, pytest.raises(BrokerUnsuitable, match="cluster mode disabled"):
        client.declare(Queue("jobs"))


def test_no_server_is_found(ask: Ask) -> None:
    finding = ask("redis://:swordfish@127.0.0.1:1/0")["reachable"]
    assert finding["verdict"] == WRONG
    assert "no Redis answers at 127.0.0.1:1" in finding["what"]


def test_a_wrong_password_is_found(ask: Ask, private_redis: StartRedis) -> None:
    server = private_redis(requirepass="right")
    finding = ask(f"redis://:swordfish@127.0.0.1:{server.address.port}/0")["access"]
    assert finding["verdict"] == WRONG


def test_a_wrong_scheme_is_found(ask: Ask) -> None:
    assert "no adapter for reddis://" in ask("reddis://:swordfish@host")["url"]["what"]


def test_a_missing_permission_is_found(ask: Ask, private_redis: StartRedis) -> None:
    """The line of docs/redis.md is enough for all but the looks that it says; a hole in it is named."""
    text = Path(__file__).parents[1].joinpath("docs", "redis.md").read_text("utf-8")
    line = next(line for line in text.splitlines() if line.startswith("ACL SETUSER mindtrace "))
    server = private_redis(**SOUND)
    with server.admin() as admin:
        admin.execute_command(*line.replace("a-long-password", "swordfish").split())
        url = f"redis://mindtrace:swordfish@127.0.0.1:{server.address.port}/0"
        whole = ask(url)
        admin.execute_command("ACL", "SETUSER", "mindtrace", "-lpop", "-zadd")
        holed = ask(url)
        admin.execute_command("ACL", "SETUSER", "mindtrace", "+lpop", "+zadd", "resetkeys", "~other:*")
        elsewhere = ask(url)

    assert whole["permissions"]["verdict"] == GOOD
    assert {subject for subject, finding in whole.items() if finding["verdict"] != GOOD} == set()
    assert holed["permissions"]["verdict"] == WRONG
    assert "may not use lpop, zadd" in holed["permissions"]["what"]
    assert holed["permissions"]["remedy"].endswith("+lpop +zadd")
    assert elsewhere["access"]["verdict"] == WRONG


def test_a_queue_that_drifted_is_found(ask: Ask, private_redis: StartRedis) -> None:
    """In its type, and in its layout."""
    server = private_redis(**SOUND)
    with server.client() as client, server.admin() as admin:
        client.declare(Queue("inspect", QueueKind.STACK))
        client.declare(Queue("old"))
        admin.hset("mtj:{default/old}:meta", "layout", "0")
    assert ask(server.url, "tasks:Inspector")["queue"]["verdict"] == GOOD  # it says no type
    findings = ask(server.url, "tasks:InOrder")

    assert findings["queue"]["verdict"] == WRONG
    assert findings["queue"]["what"] == "inspect exists as stack, but its consumer says fifo"
    assert findings["layout"]["verdict"] == WRONG
    assert "queue 'old' has layout 0" in findings["layout"]["what"]


def test_a_disk_that_fails_is_found(ask: Ask, private_redis: StartRedis) -> None:
    server = private_redis(save="3600 1", maxmemory="100mb")
    shutil.rmtree(server.folder)
    with server.admin() as admin:
        admin.bgsave()
        status = lambda: admin.info("persistence")["rdb_last_bgsave_status"]  # noqa: E731
        eventually(lambda: status() != "ok", "it has failed")

    assert ask(server.url)["disk"]["verdict"] == WRONG


def test_a_durability_that_the_server_does_not_keep_is_found(private_redis: StartRedis) -> None:
    """What a program declares is held against what there is."""
    server = private_redis(**SOUND)
    assert _subject(server, "persistence", durability=Durability.FSYNC).verdict is WRONG
    assert _subject(server, "persistence", durability=Durability.EVERY_SECOND).verdict is GOOD


def test_a_lease_that_ends_implausibly_late_is_found(private_redis: StartRedis) -> None:
    """As after a step of the server's clock; in a queue without one, there is nothing to tell."""
    server = private_redis(**SOUND)
    with server.client() as client, server.admin() as admin:
        client.declare(Queue("jobs"))
        client.publish("jobs", [Message("job", b"{}")])
        consumer = client.open_consumer("jobs", lease_s=60.0)
        assert consumer.receive(1, 0.0)
        assert "leases" not in {finding.subject for finding in client.diagnose()}
        admin.zincrby("mtj:{default/jobs}:run", 86_400_000, "job")
        finding = _subject(server, "leases")

    assert finding.verdict is DOUBTFUL
    assert "queue 'jobs': a lease ends only in 24 hours" in finding.what


def test_clocks_that_disagree_are_found(private_redis: StartRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    server = private_redis(**SOUND)
    now = time.time
    monkeypatch.setattr(diagnosis.time, "time", lambda: now() + 3600)
    finding = _subject(server, "clock")

    assert (finding.verdict, "3,600 s apart" in finding.what) == (DOUBTFUL, True)


def test_a_server_that_is_too_old_is_found(
    private_redis: StartRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_connect, "_OLDEST", (99, 0))
    finding = _subject(private_redis(**SOUND), "broker")

    assert (finding.verdict, "version 99 or newer is needed" in finding.what) == (WRONG, True)


@pytest.mark.parametrize(
    ("address", "verdict"),
    [
        ("redis://10.1.2.3", DOUBTFUL),
        ("redis://db.example", DOUBTFUL),
        ("rediss://10.1.2.3", None),
        ("redis://localhost", None),
        ("redis://127.0.0.1", None),
        ("redis://::1", None),
    ],
)
def test_plain_text_to_another_machine_is_found(address: str, verdict: Verdict | None) -> None:
    found = [finding.verdict for finding in diagnosis._server({}, address) if finding.subject == "encryption"]
    assert found == ([] if verdict is None else [verdict])


def test_a_lease_that_is_too_short_is_found(
    ask: Ask, private_redis: StartRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINDTRACE_JOBS_LEASE_S", "1")
    assert ask(private_redis(**SOUND).url)["lease"]["verdict"] == DOUBTFUL


def test_a_health_file_that_cannot_be_written_is_found(
    ask: Ask, private_redis: StartRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINDTRACE_JOBS_HEALTH_FILE", "/nowhere/health")
    assert ask(private_redis(**SOUND).url)["health file"]["verdict"] == WRONG


# -- a file ---------------------------------------------------------------------------------------


def test_before_the_first_job_the_default_file_is_well_and_is_not_made(ask: Ask, tmp_path: Path) -> None:
    findings = ask("sqlite:///mindtrace-jobs.db", "tasks:Inspector")

    assert WRONG not in {finding["verdict"] for finding in findings.values()}
    assert findings["queue"]["what"] == "inspect: not declared yet; a worker declares it"
    assert {file.name for file in tmp_path.iterdir()} <= {"tasks.py", "__pycache__"}


def test_what_is_wrong_with_a_file_is_found(ask: Ask, tmp_path: Path) -> None:
    """Its queue that drifted, the weaker durability that was asked for, and a place where it can't be."""
    with SQLiteClient(tmp_path / "jobs.db") as client:
        client.declare(Queue("inspect", QueueKind.STACK))
    findings = ask("sqlite:///jobs.db?durability=snapshot", "tasks:InOrder")

    assert findings["queue"]["what"] == "inspect exists as stack, but its consumer says fifo"
    assert findings["durability"]["verdict"] == DOUBTFUL
    assert ask("sqlite:////nowhere/jobs.db")["reachable"]["verdict"] == WRONG
    assert "sqlite:////var/lib/jobs.db" in ask("sqlite://jobs.db")["url"]["what"]


# -- what the command line asks of Redis besides --------------------------------------------------


def test_the_queues_of_a_namespace_are_listed(private_redis: StartRedis) -> None:
    """And no other's, however alike its name, among thousands of other keys."""
    server = private_redis()
    with server.admin() as admin, server.client("a") as ours, server.client("ab") as others:
        admin.mset({f"other:{n}": n for n in range(5000)})
        for name in ("z", "m.1", "a_b-c"):
            ours.declare(Queue(name))
        ours.declare(Queue("p", QueueKind.PRIORITY))
        others.declare(Queue("theirs"))

        assert ours.queues() == [
            Queue("a_b-c"),
            Queue("m.1"),
            Queue("p", QueueKind.PRIORITY),
            Queue("z"),
        ]


def test_progress_is_seen_by_others_until_the_job_ends(private_redis: StartRedis) -> None:
    """And leaves nothing behind when its queue is deleted."""
    from mindtrace.jobs import Consumer, JobInput, JobSchema, Progress

    told, seen = threading.Event(), threading.Event()

    class Slow(Consumer):
        schema = JobSchema(name="slow", input=JobInput)

        def run(self, job: Any) -> None:
            job.progress(1, 3)
            told.set()
            seen.wait(LIMIT_S)

    server = private_redis()
    with server.client() as client, server.client() as other, server.admin() as admin:
        orchestrator = Orchestrator(client)
        orchestrator.register(Slow.schema)
        job_id = orchestrator.publish("slow", {})
        with Slow() as consumer:
            consumer.connect(orchestrator)
            thread = threading.Thread(target=consumer.consume, args=(1,))
            thread.start()
            assert told.wait(LIMIT_S)
            assert other.progress("slow") == {job_id: Progress(1, 3)}
            assert other.progress("slow", [job_id, "x"]) == {job_id: Progress(1, 3)}
            assert other.progress("slow", []) == {}
            seen.set()
            thread.join()
        assert other.progress("slow") == {}
        assert admin.exists("mtj:{default/slow}:progress") == 0
        orchestrator.delete_queue("slow")


def _subject(server: PrivateRedis, subject: str, **options: Any) -> Finding:
    with server.client(**options) as client:
        return next(finding for finding in client.diagnose() if finding.subject == subject)


@pytest.mark.long
def test_what_is_wrong_with_a_rabbitmq_is_found(private_rabbitmq: StartRabbitMQ, ask: Ask) -> None:
    """A user who may too little, a wrong password, a missing virtual host, a full memory, a dead node."""
    server = private_rabbitmq()
    url = f"{server.address.url}?heartbeat_s=5"
    sound = ask(url)
    assert {finding["verdict"] for finding in sound.values()} == {GOOD}
    assert sound["server"]["what"].startswith("RabbitMQ 4")

    server.control("add_user", "reader", "swordfish")
    server.control("set_permissions", "reader", "^$", "^$", ".*")
    of_reader = f"amqp://reader:swordfish@127.0.0.1:{server.address.port}/%2F"
    denied = ask(of_reader)["permissions"]
    assert denied["verdict"] == WRONG
    assert "docs/rabbitmq.md" in denied["remedy"]
    assert ask(of_reader.replace("swordfish", "swordfish2"))["access"]["verdict"] == WRONG
    assert ask(of_reader.replace("%2F", "nowhere"))["access"]["verdict"] == WRONG

    server.control("set_vm_memory_high_watermark", "absolute", "1MB")
    alarm = lambda: "memory" in ask(url)["publishing"]["what"]  # noqa: E731
    eventually(alarm, "its memory is full")
    assert ask(url)["publishing"]["verdict"] == WRONG

    server.kill()
    assert ask(url)["reachable"]["verdict"] == WRONG
