"""Who waits for many results on a real Redis learns of every end, also after it was away for long."""

import secrets

from redis import Redis

from brokers.redis_server import Address
from mindtrace.jobs import Queue
from mindtrace.jobs.adapters.redis.keys import QueueKeys
from mindtrace.jobs.ports import Ack, Message


def now_ms(admin: Redis) -> int:
    seconds, microseconds = admin.time()
    return seconds * 1000 + microseconds // 1000


def test_who_announced_itself_too_late_is_told_to_look_all_up(redis_address: Address) -> None:
    """Wake-ups are sent only while somebody waits; another who does hides no gap."""
    namespace = f"test-{secrets.token_hex(4)}"
    with redis_address.client(namespace) as client, redis_address.admin() as admin:
        client.declare(Queue("jobs"))
        client.publish("jobs", [Message(f"job-{n}", b"{}") for n in range(6)])
        consumer = client.open_consumer("jobs")

        def end_one() -> str:
            (delivery,) = consumer.receive(1, 60.0)
            consumer.settle([Ack(delivery.receipt)])
            return delivery.id

        def end_one_while_nobody_waits() -> None:
            meta = QueueKeys(namespace, "jobs").meta
            began_ms = int(admin.hget(meta, "rsince"))
            while now_ms(admin) <= began_ms:  # the time that all announced takes seconds
                pass
            admin.hset(meta, "rwait", 1)  # it is over
            end_one()

        with client.ended_jobs("jobs") as late, client.ended_jobs("jobs") as other:
            end_one()
            assert late.wait(60.0) is None  # there was no wake-up to go on from
            id_ = end_one()
            assert late.wait(60.0) == [id_]

            end_one_while_nobody_waits()
            other.wait(0.01)
            end_one()
            assert late.wait(60.0) is None
            id_ = end_one()
            assert late.wait(60.0) == [id_]

            end_one_while_nobody_waits()
            client.result("jobs", "another", timeout_s=0.01)
            assert late.wait(0.01) is None
        client.delete("jobs")
        admin.unlink(QueueKeys(namespace, "").deleted)
