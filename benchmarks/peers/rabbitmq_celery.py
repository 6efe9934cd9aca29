"""Publish and drain rates of celery on RabbitMQ, with confirms and late acks on a quorum queue.

One worker process, the solo pool, 200 prefetched; prints a JSON object.
"""

import json
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from celery import Celery
from kombu import Queue

url, jobs = sys.argv[1], int(sys.argv[2])
name = f"bench-celery-{time.time_ns()}"
MODULE = """
    import time
    from pathlib import Path
    from celery import Celery
    from kombu import Queue

    app = Celery("peer", broker={url!r})
    app.conf.update(
        task_acks_late=True,
        task_ignore_result=True,
        worker_prefetch_multiplier=200,
        task_queues=[Queue({name!r}, routing_key={name!r}, queue_arguments={{"x-queue-type": "quorum"}})],
        task_default_queue={name!r},
        task_default_routing_key={name!r},
        broker_transport_options={{"confirm_publish": True}},
        broker_connection_retry_on_startup=False,
    )
    seen = []

    @app.task(name="work")
    def work(x, y):
        seen.append(time.time())
        if len(seen) == {jobs}:
            Path({out!r}).write_text(f"{{seen[0]}} {{seen[-1]}}")
"""
with tempfile.TemporaryDirectory() as folder:
    out = Path(folder) / "times"
    text = textwrap.dedent(MODULE).format(url=url, name=name, jobs=jobs, out=str(out))
    (Path(folder) / "peer_tasks.py").write_text(text)
    app = Celery("peer", broker=url)
    queue = Queue(name, routing_key=name, queue_arguments={"x-queue-type": "quorum"})
    app.conf.update(
        task_ignore_result=True,
        task_queues=[queue],
        task_default_queue=name,
        task_default_routing_key=name,
        broker_transport_options={"confirm_publish": True},
    )
    work = app.signature("work", args=(1.0, 2.0))
    with app.producer_pool.acquire() as producer:
        began = time.perf_counter()
        for _ in range(jobs):
            work.apply_async(producer=producer, queue=name)
        publish_s = time.perf_counter() - began
    words = [
        "-m",
        "celery",
        "-A",
        "peer_tasks",
        "worker",
        "--pool=solo",
        "--loglevel=ERROR",
        "--without-mingle",
    ]
    words += ["--without-gossip", "--without-heartbeat"]
    worker = subprocess.Popen(
        [sys.executable, *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    give_up = time.monotonic() + 120
    while not out.exists() and time.monotonic() < give_up:
        time.sleep(0.05)
    time.sleep(0.1)
    first, last = map(float, out.read_text().split())
    worker.terminate()
    worker.wait(20)
    with app.connection_for_write() as connection:
        queue(connection.default_channel).delete()
print(json.dumps({"publish_per_s": jobs / publish_s, "drain_per_s": (jobs - 1) / (last - first)}))
