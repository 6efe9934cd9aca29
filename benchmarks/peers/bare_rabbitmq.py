"""The limit on RabbitMQ, as a library that does nothing."""

from pika import BlockingConnection, URLParameters

from .. import job as jobs
from ..bare_drivers import rabbitmq
from ..peer import PLACE, About, Peer

BODY = b'{"kind":"no_op","x":1.5,"y":2.5}'


class Measured(Peer):
    about = About(
        "bare pika", "none", "SelectConnection, 1000 published and 256 prefetched at once", ("pika",)
    )
    has_batches = True
    kinds = ("no_op",)

    def open(self) -> None:
        rabbitmq.declare(PLACE.url, PLACE.queue)
        self.channel = BlockingConnection(URLParameters(PLACE.url)).channel()
        self.channel.confirm_delivery()

    def send(self, kind: str) -> None:
        self.channel.basic_publish("", PLACE.queue, BODY, rabbitmq.PERSISTENT, mandatory=True)

    def send_batch(self, kind: str, count: int) -> None:
        rabbitmq.publish(PLACE.url, PLACE.queue, [BODY] * count, 1000)

    def work(self) -> None:
        rabbitmq.consume(PLACE.url, PLACE.queue, 256, lambda: jobs.no_op(jobs.X, jobs.Y))
