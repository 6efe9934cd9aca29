"""A store in Redis for the results of a broker that keeps none itself."""

import secrets
from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import Any

from ...domain.bounds import check_name
from ...ports import EndedJob, JobResult, ResultStore
from ..shared.chunks import in_chunks
from ..shared.result_records import make_record, parse_record
from ..shared.server_settings import Password
from .ended_jobs import RedisEndedJobs, look_up
from .keys import ResultKeys
from .requests import CHUNK_BYTES, CHUNK_JOBS
from .scripts import (
    RESULT_STORE_ENDED,
    RESULT_STORE_FORGET,
    RESULT_STORE_GET,
    RESULT_STORE_GET_MANY,
    RESULT_STORE_PUT,
    Script,
)
from .settings import ServerSettings, parsed_url
from .transport import Argument


class RedisResultStore(ResultStore):
    """Keeps the results of a broker that can't, in a Redis server, version 7 or newer.

    Give it to one client, which closes it. It connects when it is first used, and reconnects by itself; a
    process that was forked uses connections of its own.

    Args:
        host: The server's host name.
        port: Its port.
        db: The number of its database.
        username: Whom to connect as; needs a password.
        password: The password; shown nowhere.
        namespace: Stores of the same namespace share their results.
        ssl: Encrypt the connection, and verify the server's certificate.
        ssl_ca_certs: A file of certificates to verify it against; the system's by default.
        sentinels: Host and port of each Sentinel that is to say where the server is; in place of ``host``.
        sentinel_service: What the Sentinels call the server.
        sentinel_password: The Sentinels' own password, where they have one; shown nowhere.
        sweep_s: The longest, in seconds, that one who waits for a result doesn't ask the server by itself.
        retry_timeout_s: How many seconds a call tries to reach the server before it fails. It is short, as
            workers wait for it as well.

    Raises:
        InvalidInput: a setting is out of range or of the wrong type; the message says which.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 6379,
        db: int = 0,
        *,
        username: str | None = None,
        password: Password = None,
        namespace: str = "default",
        ssl: bool = False,
        ssl_ca_certs: str | None = None,
        sentinels: Sequence[tuple[str, int]] = (),
        sentinel_service: str = "mymaster",
        sentinel_password: Password = None,
        sweep_s: float = 5.0,
        retry_timeout_s: float = 2.0,
    ) -> None:
        super().__init__()
        who = (username, password, ssl, ssl_ca_certs)
        server = ServerSettings(host, port, db, *who, sentinels, sentinel_service, sentinel_password)
        self._server = server
        self._namespace = check_name("namespace", namespace)
        self._sweep_s = sweep_s
        self._client_name = f"mindtrace-jobs-results-{secrets.token_hex(4)}"
        self._redis = server.connect(
            "RedisResultStore",
            self._client_name,
            sweep_s=sweep_s,
            retry_timeout_s=retry_timeout_s,
            logger=self.logger,
        )

    @classmethod
    def from_url(cls, url: str) -> "RedisResultStore":
        """Make a store from a URL, as :meth:`RedisClient.from_url` makes a client.

        Raises:
            InvalidInput: the URL can't be understood.
        """
        return cls(**parsed_url(url))

    def put(self, queue: str, ended: Sequence[EndedJob]) -> None:
        records = [(job.id, str(round(job.ttl_s * 1000)), make_record(job.result)) for job in ended]
        for chunk in in_chunks(
            records, CHUNK_JOBS, max_bytes=CHUNK_BYTES, size_of=lambda record: len(record[2])
        ):
            self._run(queue, RESULT_STORE_PUT, [argument for record in chunk for argument in record])

    def get(self, queue: str, job_id: str, *, timeout_s: float = 0.0) -> JobResult | None:
        give_up = monotonic() + timeout_s
        while True:
            record, newest = self._run(queue, RESULT_STORE_GET, [job_id])
            if record is not None:
                return parse_record(record)
            wait_s = min(self._sweep_s, give_up - monotonic())
            if wait_s <= 0:
                return None
            self._redis.wait([(self._keys(queue).wake, newest.decode())], wait_s)

    def get_many(self, queue: str, ids: Sequence[str]) -> dict[str, JobResult]:
        found = look_up(partial(self._run, queue), RESULT_STORE_GET_MANY, ids)
        return {id_: parse_record(record) for id_, record in found}

    def ended_jobs(self, queue: str) -> RedisEndedJobs:
        keys = self._keys(queue)
        return RedisEndedJobs(self._redis, partial(self._run, queue), RESULT_STORE_ENDED, keys.all, keys.wake)

    def _run(self, queue: str, script: Script, arguments: Sequence[Argument]) -> Any:
        with self._redis.outages():
            return self._redis.run(script, self._keys(queue).all, arguments)

    def forget(self, queue: str, ids: Sequence[str] | None = None) -> None:
        for chunk in [[]] if ids is None else in_chunks(ids, CHUNK_JOBS):
            self._run(queue, RESULT_STORE_FORGET, chunk)

    def make_url(self, *, with_passwords: bool = False) -> str:
        return self._server.url(self._namespace, with_passwords=with_passwords)

    def close(self) -> None:
        self._redis.close()

    def _keys(self, queue: str) -> ResultKeys:
        return ResultKeys(self._namespace, queue)
