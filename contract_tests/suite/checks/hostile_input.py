"""SEC: bodies from strangers, and secrets."""

import json
import logging
import pickle
import traceback
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from ...domain.dead_reasons import DeadReason
from ...domain.errors import JobsError
from ..app import QUEUE, Numbers, app_on
from ..check_context import CheckContext
from ..modes import EVERY_MODE, ONE_AT_A_TIME
from ..registry import check
from ..violation import demand


def _envelope(**changes: Any) -> bytes:
    fields = {"v": 1, "id": "bad", "schema": QUEUE, "created_at": 0, "payload": {"x": 1.0}}
    return json.dumps(fields | changes).encode()


_PAYLOAD = b'{"v":1,"id":"bad","schema":"sums","created_at":0,"payload":%b}'

_NASTY = (
    b"",
    b"null",
    b"[]",
    b"7",
    b'"text"',
    b"{",
    b"\xff\xfe",
    b'{"v":1}',
    _envelope(v=2),
    _envelope(v="1"),
    _envelope(id="no such id!"),
    _envelope(id=None),
    _envelope(schema="another"),
    _envelope(schema=["sums"]),
    _envelope(created_at="yesterday"),
    _envelope(created_at=1e300),
    _envelope(priority=11),
    _envelope(priority=True),
    _envelope(max_attempts=0),
    _envelope(timeout_s=0),
    _envelope(headers={"a": 1}),
    _envelope(headers=[]),
    _envelope(unknown=1),
    _envelope(payload=[1]),
    _envelope(payload={"x": "one"}),
    _envelope(payload={"x": None}),
    _PAYLOAD % b'{"x":NaN}',
    _PAYLOAD % b'{"x":Infinity}',
    _PAYLOAD % b'{"x":1e999}',
    _PAYLOAD % (b'{"x":' + b"9" * 5000 + b"}"),
    _PAYLOAD % b'{"x":1,"x":2}',
    _PAYLOAD % b'{"x":1,"\\u0078":2}',
    _PAYLOAD % (b'{"deep":' + b"[" * 100 + b"]" * 100 + b"}"),
    _PAYLOAD % (b'{"deep":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}"),
    b"[" * 200_000,
    _PAYLOAD % (b'{"note":"' + b"x" * 2_000_000 + b'"}'),
    _envelope().replace(b'"v": 1', b'"v": 1, "v": 1'),
    b"\xef\xbb\xbf" + _envelope(),
    _envelope() + b"{}",
)


@check("SEC-2", "RCV-4", modes=EVERY_MODE)
def no_body_breaks_a_consumer(context: CheckContext) -> None:
    """Bodies that are no UTF-8, too deep, too large, ambiguous or of the wrong shape end as dead letters."""

    def survive(bodies: Sequence[bytes]) -> None:
        with app_on(context) as app:
            app.publish_raw({f"bad-{number}": body for number, body in enumerate(bodies)})
            good = app.publish(Numbers(x=1, note='{"x":NaN} 1e999 :::: {{{{'))
            consumer = app.consume(app.recorder(), len(bodies) + 1)
            demand("RCV-4", consumer.ids == [good], f"{consumer.ids} ran, expected {good} only")
            letters = app.orchestrator.dead_letters(QUEUE)
            found = [(letter.id, letter.body, letter.reason) for letter in letters]
            expected = [(f"bad-{number}", body, DeadReason.MALFORMED) for number, body in enumerate(bodies)]
            if not context.mode.is_ordered:  # many at once die in any order
                found.sort()
                expected.sort()
            demand("RCV-4", found == expected, f"the dead letters are {[letter.id for letter in letters]}")

    survive(_NASTY)
    if context.mode is not ONE_AT_A_TIME:
        return  # what is found in a body doesn't depend on what runs beside

    @context.property(
        bodies=st.lists(st.one_of(st.sampled_from(_NASTY), st.binary(max_size=200)), min_size=1, max_size=5)
    )
    def _(bodies: list[bytes]) -> None:
        survive(bodies)


_sprung: list[bool] = []


def _spring() -> None:
    _sprung.append(True)


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (_spring, ())


@check("SEC-1", modes=EVERY_MODE)
def nothing_is_unpickled_or_imported(context: CheckContext) -> None:
    """A pickle, and an envelope that names code to run or a schema nobody registered, are dead letters."""
    traps = [
        pickle.dumps(_Trap()),
        _envelope(schema="os.system"),
        _envelope(payload={"py/object": "os.system", "x": "!!python/object/apply:os.system"}),
        b"cos\nsystem\n(S'true'\ntR.",
    ]
    _sprung.clear()
    with app_on(context) as app:
        app.publish_raw({f"trap-{number}": body for number, body in enumerate(traps)})
        consumer = app.consume(app.recorder(), len(traps))
        demand("SEC-1", not _sprung, "a pickle was loaded")
        demand("SEC-1", consumer.jobs == [], "a job of an unknown kind was run")
        assert app.orchestrator.counts(QUEUE).dead == len(traps)


@check("SEC-3")
def secrets_stay_secret(context: CheckContext) -> None:
    """What the harness connects with appears in no repr, no log record, no error and no traceback."""
    records: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(self.format(record))

    root, collector = logging.getLogger(), Collector()
    level = root.level
    root.addHandler(collector)
    root.setLevel(logging.DEBUG)
    try:
        with context.queue() as queue:
            queue.publish("job")
            consumer = queue.consumer()
            queue.drain(consumer, 1)
            records += [repr(queue.backend), repr(consumer), str(queue.backend), repr(vars(queue.backend))]
            try:
                queue.backend.counts("nowhere")
            except JobsError as error:
                records += [repr(error), *traceback.format_exception(error)]
    finally:
        root.removeHandler(collector)
        root.setLevel(level)
    for secret in context.harness.secrets or ():
        leaks = [record for record in records if secret in record]
        demand("SEC-3", not leaks, f"a secret stands in {leaks[:1]!r:.200}")
