"""What a run couldn't try, as the harness lacks an optional method."""

from collections.abc import Iterable


def untried(results: Iterable[tuple[Iterable[str], Iterable[str]]]) -> list[str]:
    """Return a line for each hook that a harness lacks, from the hooks and the clauses of each check."""
    clauses: dict[str, set[str]] = {}
    for hooks, proved in results:
        for hook in hooks:
            clauses.setdefault(hook, set()).update(proved)
    return [
        f"not tried for lack of the harness's {hook}: parts of {', '.join(sorted(named))}"
        for hook, named in sorted(clauses.items())
    ]
