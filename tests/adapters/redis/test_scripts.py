"""How the scripts are put together; what their parts do is tried in ``e2e/test_redis_scripts.py``."""

import re
from importlib.resources import files

import pytest

from mindtrace.jobs.adapters.redis import scripts
from mindtrace.jobs.adapters.redis.keys import CoordinationKeys, QueueKeys, ResultKeys
from mindtrace.jobs.adapters.redis.scripts import Script, compose
from mindtrace.jobs.adapters.shared.records import REMEMBERED_ENDS
from mindtrace.jobs.domain.queue import QueueKind

SCRIPTS = {name: value for name, value in vars(scripts).items() if isinstance(value, Script)}
FOLDER = files(scripts.__package__) / "lua"
PARTS = [path.name for path in (FOLDER / "parts").iterdir()]
OF_A_STORE = (
    "RESULT_STORE_PUT",
    "RESULT_STORE_GET",
    "RESULT_STORE_GET_MANY",
    "RESULT_STORE_ENDED",
    "RESULT_STORE_FORGET",
)
OF_COORDINATION = (
    *("GET_RECORDS", "SCAN_RECORDS", "PUT_RECORD", "DELETE_RECORD", "PUBLISH_GUARDED"),
    *("TAKE_PLACES", "COUNT_PLACES", "RESERVE"),
)


def test_keys_become_local_variables() -> None:
    script = compose("#!lua flags=no-writes\n-- KEYS  meta run\nreturn 1\n")

    assert script.keys == ("meta", "run")
    first, second, *_ = script.text.splitlines()
    assert (first, second) == ("#!lua flags=no-writes", "local meta, run = unpack(KEYS)")


def test_an_include_is_replaced_by_the_part_and_by_what_that_includes() -> None:
    text = compose("#!lua\n-- KEYS  meta\nif true then\n  --- @include settle\nend\n").text

    assert "@include" not in text
    assert "read_history(redis.call(" in text
    assert "local function read_history" in text
    assert f"KEPT_ENDS, SWEPT = {REMEMBERED_ENDS}," in text


def test_a_script_gets_the_functions_that_it_uses_in_order_and_no_others() -> None:
    text = compose("#!lua\n-- KEYS  meta\nreturn first_score(meta) or take_numbers(meta, 'x', 1, 0)\n").text

    assert re.findall(r"^local (?:function )?(\w+)", text, re.MULTILINE) == [
        *("FORMAT", "RECORD", "LEVEL"),
        *("take_numbers", "first_score", "meta"),
    ]


def test_a_script_names_its_keys() -> None:
    with pytest.raises(ValueError, match="not enough values"):
        compose("#!lua\nreturn 1\n")


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_key_of_a_script_is_one_of_its_queue(name: str) -> None:
    script = SCRIPTS[name]
    if name in OF_A_STORE:
        keys = ResultKeys("space", "jobs")
        assert keys.all == [getattr(keys, each) for each in script.keys]
    elif name in OF_COORDINATION:
        found = _coordination_keys(script)
        assert len(set(found)) == len(script.keys)
        assert all(key.startswith("mtj:{space/") for key in found)
        assert script.keys[0] == "last" or "last" not in script.keys
    else:
        found = QueueKeys("space", "jobs").of(script, "me")
        assert len(set(found)) == len(script.keys)
        assert all(key.startswith("mtj:{space/") for key in found)


def _coordination_keys(script: Script) -> list[str]:
    keys = CoordinationKeys("space")
    behind = keys.of(script, QueueKeys("space", "jobs"))
    return [keys.last("me"), *behind] if "last" in script.keys else behind


def test_no_queue_has_a_key_of_the_coordination_store() -> None:
    """Whatever its name, and whatever is limited."""
    ours = CoordinationKeys("space")
    named = {key for key in vars(ours).values() if key != ours._prefix}
    keys = {*named, ours.last("me"), ours.rate("x}:meta"), *ours.places("x}:meta"), ours.reports("me")}
    deleted = QueueKeys("space", "jobs").deleted

    assert len(keys) == 11
    assert deleted not in keys
    assert all(key.startswith("mtj:{space/}:") for key in keys)
    assert not any(
        str(key).startswith("mtj:{space/}:")
        for key in vars(QueueKeys("space", "-")).values()
        if key != deleted
    )


def test_all_keys_of_a_queue_have_a_type_and_are_looked_at_and_removed() -> None:
    known = set(QueueKeys("space", "jobs").types(QueueKind.FIFO))

    assert set(scripts.INSPECT.keys) == known
    assert set(scripts.DELETE.keys) == known | {"last", "deleted"}


@pytest.mark.parametrize("name", PARTS)
def test_every_part_says_what_it_reads_and_sets_and_costs(name: str) -> None:
    header = (FOLDER / "parts" / name).read_text("utf-8").split("\n\n")[0]

    assert all(line.startswith("-- ") for line in header.splitlines())
    assert [word for word in ("Reads", "Sets", "Cost") if f"\n-- {word} " not in header] == []
