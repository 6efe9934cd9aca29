"""Words for messages."""


def quantity(count: int, noun: str, plural: str | None = None) -> str:
    """Return ``count`` with its noun, such as ``1 job`` or ``2,000 jobs``; ``plural`` is irregular."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


REGISTER_FIRST = "register its schema first"
"""What a program does about a queue that isn't declared. Commands put their own words in its place."""
