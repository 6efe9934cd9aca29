"""Which requests the server may forget, by what a consumer knows (ADR 82)."""

from mindtrace.jobs.adapters.postgresql.requests import KeptRequests


def test_a_lease_is_forgotten_once_no_job_has_it() -> None:
    kept = KeptRequests()
    kept.begin(1, 2)
    kept.leave(1)
    assert kept.over() == []
    kept.leave(1)
    assert kept.over() == kept.forgettable() == [1]


def test_the_last_request_is_forgotten_after_the_next_one() -> None:
    kept = KeptRequests()
    kept.answered(1, knew_last=False)
    kept.begin(1, 0)
    assert (kept.forgettable(), kept.over()) == ([], [1]), "at the end it is forgotten, too"
    kept.answered(2, knew_last=True)
    assert (kept.forgettable(), kept.last) == ([1], 2)
    kept.answered(3, knew_last=True)
    assert kept.over() == [], "the server was told"


def test_a_lease_of_which_a_job_was_lost_is_never_forgotten() -> None:
    kept = KeptRequests()
    kept.begin(1, 2)
    kept.distrust(1)
    kept.leave(1)
    assert kept.over() == []


def test_no_lease_from_before_a_crash_that_took_something_back_is_forgotten() -> None:
    kept = KeptRequests()
    kept.begin(1, 1)
    kept.answered(2, knew_last=False)
    kept.begin(3, 1)
    kept.answered(4, knew_last=False)
    for lease in (1, 3):
        kept.leave(lease)
    assert kept.over() == []


def test_the_first_request_of_a_consumer_shows_no_crash() -> None:
    kept = KeptRequests()
    kept.begin(1, 1)
    kept.answered(2, knew_last=False)
    kept.leave(1)
    assert kept.over() == [1]
