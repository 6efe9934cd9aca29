"""The example of an order and its job in one transaction, with FastAPI and SQLAlchemy."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

from brokers.postgresql_server import Address

FOLDER = Path(__file__).parents[1] / "examples" / "orders"

CLIENT = """
from fastapi.testclient import TestClient

from mindtrace.jobs import Orchestrator
from shop import JOBS_URL, Mailer, app

with TestClient(app) as client:
    for item in ("lamp", "unicorn", "chair"):
        answer = client.post("/orders", params={"item": item})
        print(answer.status_code, *answer.json())
with Orchestrator(JOBS_URL) as jobs, Mailer() as mailer:
    mailer.connect(jobs)
    mailer.consume_until_empty()
"""


def test_an_order_and_its_job_are_there_together_or_not_at_all(postgresql_address: Address) -> None:
    name = f"test-{uuid4().hex}"
    tables = f"-csearch_path={name}"
    url = postgresql_address.url()
    with postgresql_address.connect() as admin:
        admin.execute(f'CREATE SCHEMA "{name}"')
        try:
            environment = os.environ | {
                "DATABASE_URL": f"{url}{'&' if '?' in url else '?'}options={tables}",
                "JOBS_URL": postgresql_address.url(f"{name}-jobs"),
                "PYTHONPATH": str(FOLDER),
            }
            done = subprocess.run(
                [sys.executable, "-X", "utf8", "-c", CLIENT],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                timeout=300,
            )
            assert done.returncode == 0, done.stdout
            rows = admin.execute(f'SELECT id, item FROM "{name}".orders ORDER BY id').fetchall()
        finally:
            admin.execute(f'DROP SCHEMA "{name}" CASCADE')
            admin.execute(f'DROP SCHEMA IF EXISTS "{name}-jobs" CASCADE')

    assert rows == [(1, "lamp"), (3, "chair")]
    assert done.stdout.splitlines() == [
        "201 order",
        "409 detail",
        "201 order",
        "mail about order 1",
        "mail about order 3",
    ]
