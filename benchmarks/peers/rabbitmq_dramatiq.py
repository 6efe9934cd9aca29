"""Publish and drain rates of dramatiq on RabbitMQ, with confirms, in one process; prints a JSON object."""

import json
import sys
import time

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

queue = f"bench-dramatiq-{time.time_ns()}"
broker = RabbitmqBroker(url=sys.argv[1], confirm_delivery=True)
broker.middleware[:] = [one for one in broker.middleware if type(one).__name__ != "Prometheus"]
dramatiq.set_broker(broker)
jobs = int(sys.argv[2])
seen = 0


@dramatiq.actor(queue_name=queue)
def work(x: float, y: float) -> None:
    global seen
    seen += 1


began = time.perf_counter()
for _ in range(jobs):
    work.send(1.0, 2.0)
publish_s = time.perf_counter() - began

worker = dramatiq.Worker(broker, worker_threads=8)
began = time.perf_counter()
worker.start()
while seen < jobs:
    time.sleep(0.001)
drain_s = time.perf_counter() - began
worker.stop()
channel = broker.connection.channel()
for name in (queue, f"{queue}.DQ", f"{queue}.XQ"):
    channel.queue_delete(name)
broker.close()
print(json.dumps({"publish_per_s": jobs / publish_s, "drain_per_s": jobs / drain_s}))
