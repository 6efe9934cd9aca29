"""Put faults into the real adapters, one at a time, and see whether the contract suite finds them.

    PYTHONPATH=testing .venv/bin/python -m mutants redis --generated 20 --seed 1

Each mutant is the whole package with one file changed. The suite runs on it until a check fails, on a private
server. What survives is printed with its change: a survivor is a gap of the suite, or no fault.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from brokers.postgresql_server import PrivatePostgreSQL
from brokers.private_server import PrivateServer
from brokers.rabbitmq_server import PrivateRabbitMQ
from brokers.redis_server import PrivateRedis

from .generated import sample
from .incidents import BY_BACKEND
from .mutant import Mutant
from .trial import TrialFailed, Verdict, try_mutant

BACKENDS = ("local", "sqlite", "redis", "rabbitmq", "postgresql")
_REDIS = ("MINDTRACE_JOBS_TEST_REDIS", PrivateRedis)
_SERVERS: dict[str, tuple[tuple[str, type[PrivateServer]], ...]] = {
    "redis": (_REDIS,),
    "rabbitmq": (("MINDTRACE_JOBS_TEST_RABBITMQ", PrivateRabbitMQ), _REDIS),  # from which it borrows
    "postgresql": (("MINDTRACE_JOBS_TEST_POSTGRESQL", PrivatePostgreSQL),),
}
"""The servers that each backend's trials need, each with the variable that has tests use it."""


def main() -> int:
    """Try the mutants of each backend that is named, and return 1 if one written by hand survives."""
    options = _options()
    verdicts: list[Verdict] = []
    for backend in options.backends or BACKENDS:
        mutants = _mutants(backend, options)
        if not mutants:
            continue
        with tempfile.TemporaryDirectory() as folder, _servers(backend, Path(folder)) as servers:
            for verdict in _tried(backend, mutants, Path(folder), servers, options):
                print(_line(verdict), flush=True)
                verdicts.append(verdict)
                _write(options.out, verdicts)
    _print_scores(verdicts)
    return int(any(verdict.mutant.sentence and not verdict.is_caught for verdict in verdicts))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mutants", description=__doc__.split("\n")[0])
    parser.add_argument(
        "backends", nargs="*", metavar="BACKEND", help=f"of {', '.join(BACKENDS)}; all by default"
    )
    parser.add_argument(
        "--generated", type=int, default=0, help="how many mutants to generate for each backend"
    )
    parser.add_argument("--seed", type=int, default=1, help="which of them")
    parser.add_argument("--without-incidents", action="store_true", help="leave out those written by hand")
    parser.add_argument(
        "--nearest", action="store_true", help="run only the checks of the clauses that each fault breaks"
    )
    parser.add_argument("--name", help="only those whose name has this in it")
    parser.add_argument("--profile", default="quick", help="how hard the suite tries")
    parser.add_argument("--workers", type=int, default=8, help="how many checks run at once")
    parser.add_argument("--out", type=Path, default=Path("build/mutants.json"))
    options = parser.parse_args()
    if unknown := set(options.backends) - set(BACKENDS):
        parser.error(f"no backend {', '.join(sorted(unknown))}: choose of {', '.join(BACKENDS)}")
    return options


def _mutants(backend: str, options: argparse.Namespace) -> Sequence[Mutant]:
    by_hand = () if options.without_incidents else BY_BACKEND.get(backend, ())
    found = [*by_hand, *sample(backend, options.generated, options.seed)]
    return [mutant for mutant in found if options.name is None or options.name in mutant.name]


@contextmanager
def _servers(backend: str, folder: Path) -> Iterator[Mapping[str, str]]:
    """Start the backend's servers; yields the variables that have tests use them."""
    variables: dict[str, str] = {}
    with ExitStack() as stack:
        for variable, make in _SERVERS.get(backend, ()):
            home = folder / variable
            home.mkdir()
            server = make(home)
            stack.callback(server.close)
            url = server.start().address.url
            variables[variable] = url() if callable(url) else url
        yield variables


def _tried(
    backend: str,
    mutants: Iterable[Mutant],
    folder: Path,
    servers: Mapping[str, str],
    options: argparse.Namespace,
) -> Iterator[Verdict]:
    how = {
        "folder": folder / "package",
        "servers": servers,
        "profile": options.profile,
        "workers": options.workers,
        "nearest": options.nearest,
    }
    if not options.nearest:  # else a run of its own would take longer than those of all faults
        check, _, error, _ = try_mutant(None, backend, **how)
        if check is not None:
            raise TrialFailed(f"{backend} without a fault fails {check}: {error}")
    for mutant in mutants:
        yield Verdict(mutant, *try_mutant(mutant, backend, **how))


def _line(verdict: Verdict) -> str:
    mutant = verdict.mutant
    if not verdict.is_caught:
        change = f"-{mutant.old}\n+{mutant.new}"
        return f"SURVIVED  {mutant.name} ({verdict.seconds:.0f} s): {mutant.sentence}\n{change}"
    mark = "" if verdict.by_its_clause or not mutant.clauses else ", not by its clause"
    return f"caught    {mutant.name} ({verdict.seconds:.0f} s) by {verdict.check} [{verdict.clause}]{mark}"


def _print_scores(verdicts: Sequence[Verdict]) -> None:
    for is_by_hand, kind in ((True, "written by hand"), (False, "generated")):
        for backend in BACKENDS:
            those = [
                v for v in verdicts if v.mutant.backend == backend and bool(v.mutant.sentence) == is_by_hand
            ]
            if those:
                caught, at_once = sum(v.is_caught for v in those), sum(v.by_its_clause for v in those)
                by_clause = f", {at_once} first by a clause that is broken" if is_by_hand else ""
                print(f"{backend}: {caught} of {len(those)} {kind} caught{by_clause}")


def _write(path: Path, verdicts: Sequence[Verdict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(verdict) for verdict in verdicts], indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
