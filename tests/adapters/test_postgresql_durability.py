"""What the doctor takes a server's settings for, beside what the client declares."""

from collections.abc import Mapping
from typing import Any

import pytest

from mindtrace.jobs import Durability, Verdict
from mindtrace.jobs.adapters.postgresql.diagnosis import _durability


class Look:
    """A server of these settings."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.setting = settings.__getitem__


@pytest.mark.parametrize(
    ("commit", "standbys", "kept"),
    [
        ("off", "", Durability.EVERY_SECOND),
        ("local", "s1", Durability.FSYNC),
        ("on", "", Durability.FSYNC),
        ("remote_write", "s1", Durability.FSYNC),  # the standby has it in memory only
        ("on", "s1", Durability.REPLICATED),
        ("remote_apply", "ANY 1 (s1, s2)", Durability.REPLICATED),
    ],
)
def test_a_job_is_replicated_once_a_standby_has_it_on_its_disk(
    commit: str, standbys: str, kept: Durability
) -> None:
    settings = {"fsync": "on", "synchronous_commit": commit, "synchronous_standby_names": standbys}
    look: Any = Look(settings)

    (finding,) = _durability(look, kept)
    assert finding.verdict is Verdict.GOOD
    assert f"durability {kept.value!r}" in finding.what
    (finding,) = _durability(look, Durability.REPLICATED)
    assert (finding.verdict is Verdict.GOOD) == (kept is Durability.REPLICATED)
