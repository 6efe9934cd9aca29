"""JSON from strangers: bounded, unambiguous, or refused by a typed error, and quickly (SEC-2)."""

import json
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from mindtrace.jobs import Job, JobInput, JobSchema
from mindtrace.jobs.domain import envelope
from mindtrace.jobs.domain.envelope import decode, open_envelope
from mindtrace.jobs.domain.errors import BodyTooLarge, InvalidInput, MalformedBody
from mindtrace.jobs.domain.json_guard import check_bounds, parse_object

MIB = 1024 * 1024


class Anything(JobInput):
    value: Any = None


SCHEMA = JobSchema("anything", Anything)
GOOD = b'{"v":1,"id":"a","schema":"anything","created_at":1.5,"payload":{"value":[1,"two",{"three":null}]}}'

TRICKY = ["", '"', "\\", ":", "{", "}", "[", "NaN", "null", '":"', '\\"', "é", "\u2028", "9" * 201, "a", "b"]
strings = st.sampled_from(TRICKY) | st.text(max_size=8)


class Twice(list[tuple[str, Any]]):
    """A JSON object as a list of members, so that a key can stand in it twice."""


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | strings,
    lambda inner: st.lists(inner, max_size=4) | st.lists(st.tuples(strings, inner), max_size=4).map(Twice),
    max_leaves=12,
)
objects = st.lists(st.tuples(strings, values), max_size=4).map(Twice)


def written(value: Any, *, ascii_only: bool) -> str:
    if isinstance(value, Twice):
        members = (
            f"{json.dumps(key, ensure_ascii=ascii_only)}:{written(item, ascii_only=ascii_only)}"
            for key, item in value
        )
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(written(item, ascii_only=ascii_only) for item in value) + "]"
    return json.dumps(value, ensure_ascii=ascii_only)


def plain(value: Any) -> Any:
    if isinstance(value, Twice):
        return {key: plain(item) for key, item in value}
    return [plain(item) for item in value] if isinstance(value, list) else value


def has_twins(value: Any) -> bool:
    if isinstance(value, Twice):
        keys = [key for key, _ in value]
        return len(set(keys)) < len(keys) or any(has_twins(item) for _, item in value)
    return isinstance(value, list) and any(map(has_twins, value))


@given(value=objects, ascii_only=st.booleans())
@example(Twice([("a", Twice([("b", 1), ("b", 1)]))]), True)
@example(Twice([("a", ":"), ("a", 1)]), True)
@example(Twice([("a", Twice([("b", 1)])), ("a", 1)]), True)
@example(Twice([("a", [Twice([("é", 1), ("é", 2)])])]), True)
def test_an_object_is_refused_just_when_a_key_stands_in_it_twice(value: Twice, ascii_only: bool) -> None:
    """At any depth, however strings are escaped and whatever they hold; all else is read as it is (SEC-2)."""
    body = written(value, ascii_only=ascii_only).encode()

    if has_twins(value):
        with pytest.raises(MalformedBody, match="an object has the same key twice"):
            parse_object(body)
    else:
        assert parse_object(body) == plain(value)


def test_twins_are_seen_through_their_escapes() -> None:
    r"""``"a"`` and ``"\u0061"`` are one key (SEC-2)."""
    with pytest.raises(MalformedBody, match="an object has the same key twice"):
        parse_object(rb'{"a":1,"\u0061":2}')


def read(how: Callable[[], object]) -> tuple[object, str]:
    """What was read, or the refusal; any other error passes through."""
    try:
        return how(), ""
    except InvalidInput as error:
        return None, f"{type(error).__name__}: {error}"


def decode_by_parts(body: bytes, schema: JobSchema[Any, Any]) -> Job[Any]:
    """Decode without the short way that most bodies are read by."""
    with patch.object(envelope, "_decode_at_once", lambda *_: None):
        return decode(body, schema)


def only_refuses(body: bytes, schema: JobSchema[Any, Any] = SCHEMA) -> None:
    """Read ``body`` in every way: it may be refused, in few words, and the short way changes nothing."""
    decoded = read(lambda: decode(body, schema))
    assert repr(decoded) == repr(read(lambda: decode_by_parts(body, schema)))  # NaN isn't equal to itself
    refusals = [decoded[1], read(lambda: open_envelope(body))[1]]
    assert max(map(len, refusals)) < 1000, "a stranger's body can fill a log"


@given(body=st.binary(max_size=200))
def test_random_bytes_are_read_or_refused(body: bytes) -> None:
    """No other error than InvalidInput ever comes of a body (RCV-4)."""
    only_refuses(body)


@given(data=st.data())
def test_a_damaged_envelope_is_read_or_refused(data: st.DataObject) -> None:
    """Bytes cut out of a good body, put in, or swapped (RCV-4)."""
    start = data.draw(st.integers(0, len(GOOD)))
    end = data.draw(st.integers(start, len(GOOD)))
    put = data.draw(
        st.binary(max_size=6)
        | st.sampled_from([b"NaN", b"1e999", b'"v":1,', b'"payload":{},', b"[" * 70, b"\\u", b" "])
    )

    only_refuses(GOOD[:start] + put + GOOD[end:])


class Lenient(BaseModel):
    """Written with all that JSON lacks, and read so."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    value: Any = None
    number: float = 0.0
    inner: "Lenient | None" = None


@pytest.mark.parametrize("schema", [SCHEMA, JobSchema("anything", Lenient)], ids=["strict", "lenient"])
@pytest.mark.parametrize(
    "payload",
    [
        '{"value":NaN}',
        '{"value":NaN,"number":0.0,"inner":null}',
        '{"value":null,"number":Infinity,"inner":null}',
        '{"value":"NaN","number":-1e999,"inner":null}',
        '{"value":1,"value":1}',
        '{"value":1,"value":2}',
        '{"value":null,"number":1.0,"number":1.0,"inner":null}',
        '{"value":null,"number":1.0,"inner":{"value":":","number":1.0,"inner":null}}',
        '{"value":{"a":1,"a":1}}',
        '{"value":1},"payload":{"value":1}',
        '{"value":1},"priority":3',
        '{"value":"é"}',
        '{"value":"\\u00e9"}',
        "{}",
        '{"unknown":1}',
    ],
)
@pytest.mark.parametrize("head", ["", '"priority":3,', '"priority":true,', '"id":"b",', '"not_before":NaN,'])
def test_the_short_way_reads_what_the_long_one_does(
    schema: JobSchema[Any, Any], payload: str, head: str
) -> None:
    """It may leave a body to the other, and never accepts what that one refuses (SEC-2)."""
    body = f'{{"v":1,"id":"a","schema":"anything",{head}"created_at":1.5,"payload":{payload}}}'

    only_refuses(body.encode(), schema)


@pytest.mark.parametrize(
    "created_at", ["1.5", "0", "01", "1e3", "-1", "1.", "253370764799.9", "253370764800"]
)
@pytest.mark.parametrize(
    "more",
    [
        "",
        ',"priority":9',
        ',"priority":10',
        ',"priority":09',
        ',"not_before":2.5',
        ',"not_before":253370764800',
        ',"max_attempts":1000000',
        ',"max_attempts":1000001',
        ',"max_attempts":0',
        ',"priority":1,"not_before":2.0,"max_attempts":3',
        ',"max_attempts":3,"priority":1',
        ',"priority":1,"priority":1',
    ],
)
def test_the_short_way_knows_the_bounds_of_the_long_one(created_at: str, more: str) -> None:
    """Of what stands before the payload, in the order in which it is written or in another (SEC-2)."""
    payload = '{"value":null,"number":1.0,"inner":null}'
    body = f'{{"v":1,"id":"a","schema":"anything","created_at":{created_at}{more},"payload":{payload}}}'

    only_refuses(body.encode(), JobSchema("anything", Lenient))


@given(
    field=st.sampled_from(
        ["v", "id", "schema", "created_at", "payload", "priority", "not_before", "max_attempts", "headers"]
    ),
    value=values | st.integers(-(10**199), 10**199) | st.floats(),
)
def test_any_value_in_any_field_is_read_or_refused(field: str, value: Any) -> None:
    """A stranger may put anything anywhere (RCV-4)."""
    envelope = {**json.loads(GOOD), field: plain(value)}

    only_refuses(json.dumps(envelope).encode())


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "[{}, [1e400]]"])
def test_a_number_that_is_none_is_refused(number: str) -> None:
    """Neither the words, nor what overflows a double, at any depth (SEC-2)."""
    with pytest.raises(MalformedBody, match=r"not JSON: |a number is larger than a double can hold"):
        parse_object(b'{"a":%b}' % number.encode())


@pytest.mark.parametrize("digits", ["1" * 201, "-" + "1" * 201, "0." + "1" * 201, "1e" + "0" * 201])
def test_a_long_run_of_digits_is_refused(digits: str) -> None:
    """Turning digits into an integer takes time by the square of their count (SEC-2)."""
    with pytest.raises(MalformedBody, match="a number of more than 200 digits"):
        parse_object(b'{"a":%b}' % digits.encode())


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "-Infinity",
        "1e999",
        "9" * 500,
        "{" * 100,
        "[" * 100,
        '\\"' * 100,
        '{"a":1,"a":2}',
        '"a":1,"a":',
        "\\",
    ],
)
def test_a_string_that_merely_looks_hostile_is_accepted(text: str) -> None:
    """What stands between quotes is text (SEC-2)."""
    assert parse_object(json.dumps({"a": text, text: 1}).encode()) == {"a": text, text: 1}


@pytest.mark.parametrize(
    ("opening", "closing", "levels"),
    [(b"[", b"]", 63), (b'{"a":', b"}", 63), (b'[{"a":', b"}]", 31)],
    ids=["arrays", "objects", "both"],
)
def test_nesting_is_bounded(opening: bytes, closing: bytes, levels: int) -> None:
    """64 levels in all pass, more are refused (SEC-2)."""
    assert parse_object(b'{"a":' + opening * levels + b"1" + closing * levels + b"}")
    levels += 1
    with pytest.raises(MalformedBody, match="nested deeper than 64 levels"):
        parse_object(b'{"a":' + opening * levels + b"1" + closing * levels + b"}")


def test_breadth_is_not_depth() -> None:
    """A thousand small arrays side by side nest no deeper than one."""
    body = json.dumps({"a": [[n, n] for n in range(1000)]}).encode()

    assert len(parse_object(body)["a"]) == 1000


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (b"", "not JSON: "),
        (b"{", "not JSON: "),
        (b"{} {}", "not JSON: "),
        (b'{"a":1,}', "not JSON: "),
        (b"{'a':1}", "not JSON: "),
        (b'{"a":\xff}', "not JSON: "),
        (b'{"a":"\xff"}', "not JSON: "),
        (b'{"a":"\\ud800"}', "not JSON: "),
        (b"\xef\xbb\xbf{}", "not JSON: "),
        ('{"a":1}'.encode("utf-16"), "not JSON: "),
        (b"\x80\x04}.", "not JSON: "),
        (b"[]", "not a JSON object but an array"),
        (b'"a"', "not a JSON object but a string"),
        (b"1", "not a JSON object but a number"),
        (b"true", "not a JSON object but a boolean"),
        (b"null", "not a JSON object but null"),
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes, rule: str) -> None:
    """JSON in UTF-8 and nothing else, a pickle least of all (SEC-1)."""
    with pytest.raises(MalformedBody, match=rule):
        parse_object(body)


def test_size_is_looked_at_first() -> None:
    """One byte over the limit and nothing else is looked at (SEC-2)."""
    assert parse_object(b'{"a":1}', max_bytes=7)
    with pytest.raises(BodyTooLarge, match="body of 7 bytes: the limit is 6 bytes"):
        parse_object(b'{"a":1}', max_bytes=6)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" * 65 + b'"' + b'\\"' * (MIB // 2 - 50), id="a string that never ends"),
        pytest.param(b"[" * 65 + b'"' * (MIB - 65), id="quotes"),
        pytest.param(b"[" * 65 + b"\\" * (MIB - 65), id="backslashes"),
        pytest.param(b"[" * MIB, id="brackets"),
        pytest.param((b'{"a":' * MIB)[:MIB], id="objects"),
        pytest.param(b"1" * MIB, id="digits"),
        pytest.param((b"1" * 200 + b",") * (MIB // 201), id="numbers just short enough"),
        pytest.param(b'{"a":"' + b":" * (MIB - 8) + b'"}', id="colons"),
        pytest.param(b'{"a":[' + b"[]," * (MIB // 4) + b"1]}", id="many small arrays"),
    ],
)
def test_the_largest_body_is_judged_quickly(body: bytes) -> None:
    """Time grows with the length of a body and no faster, whatever is in it (SEC-2)."""
    assert len(body) <= MIB
    only_refuses(body)


def test_bounds_can_be_checked_without_parsing() -> None:
    """A publisher checks what it has just written itself."""
    check_bounds(b'{"a":[1,2]}')
    with pytest.raises(BodyTooLarge):
        check_bounds(b"xx", max_bytes=1)
