"""Messages count in English."""

import pytest

from mindtrace.jobs.domain.wording import quantity


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, "job"), "0 jobs"),
        ((1, "job"), "1 job"),
        ((2000, "job"), "2,000 jobs"),
        ((1, "delivery", "deliveries"), "1 delivery"),
        ((2, "delivery", "deliveries"), "2 deliveries"),
    ],
)
def test_a_noun_agrees_with_its_number(arguments: tuple[int, str], text: str) -> None:
    assert quantity(*arguments) == text
