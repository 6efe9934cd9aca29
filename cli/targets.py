"""What ``worker`` is told to run: consumers, and their weights."""

from typing import NamedTuple

from .errors import BadUsage
from .settings import Settings

_MAX_WEIGHT = 10_000


class Target(NamedTuple):
    """A module, or a name in it; and the weight of the consumers that it stands for."""

    name: str
    weight: int | None
    """None where none is given."""

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Read ``tasks``, ``tasks:High`` or ``tasks:High=3``.

        Raises:
            BadUsage: the weight is no integer from 1 to 10,000.
        """
        name, separator, weight = text.partition("=")
        if not separator:
            return cls(name, None)
        if not (weight.isascii() and weight.isdigit() and 1 <= int(weight) <= _MAX_WEIGHT):
            raise BadUsage(f"{text!r}: a weight is a whole number from 1 to {_MAX_WEIGHT:,}, as in {name}=3")
        return cls(name, int(weight))


def check_order(settings: Settings) -> None:
    """Refuse an order or a weight that nothing would obey.

    Raises:
        BadUsage: there is one.
    """
    weighted = [text for text in settings.consumers if Target.parse(text).weight is not None]
    if settings.jobs is None and settings.order is not None:
        raise BadUsage(f"--order {settings.order} needs --jobs: without it each consumer runs its own jobs")
    if settings.jobs is None and weighted:
        raise BadUsage(f"{weighted[0]!r}: a weight needs --jobs, which says how many jobs run at once")
    if settings.autoscale is not None and "processes" in settings.model_fields_set:
        raise BadUsage("--processes and --autoscale: leave one out, as both say how many processes there are")
    if settings.order == "strict" and weighted:
        raise BadUsage(
            f"{weighted[0]!r}: --order strict goes by the order of the names; leave the weight out, or use "
            "--order weighted"
        )
