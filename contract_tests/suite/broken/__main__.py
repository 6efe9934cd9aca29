"""Print which check catches which fault, as a table in Markdown."""

import argparse
import logging
import sys
from contextlib import closing
from importlib import import_module

from ..harness import Harness
from . import detect, possible_faults


def main(harness_name: str) -> int:
    """Try every fault on the adapter of the harness that ``module:Class`` names; return how many got away."""
    module, _, name = harness_name.partition(":")
    make: type[Harness] = getattr(import_module(module), name)
    logging.lastResort = None  # what handlers raise on purpose is no news
    escaped = 0
    print("| fault | clause | caught by | examples |")
    print("|---|---|---|---|")
    with closing(make()) as harness:
        for fault in possible_faults(harness):
            for clause, result in detect(harness, fault).items():
                escaped += result is None
                caught = f"`{result.check}` | {result.examples or 1}" if result else "**nothing** |"
                print(f"| **{fault.name}**: {fault.sentence} | {clause} | {caught} |", flush=True)
    return escaped


def harness_name() -> str:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description=(__doc__ or "").strip())
    parser.add_argument("harness", metavar="module:Class", help="the harness of the adapter to break")
    name: str = parser.parse_args().harness
    if not all(name.partition(":")):
        parser.error(
            f"{name!r} is no harness: name its module and its class, as in tests.test_contract:MyHarness"
        )
    return name


if __name__ == "__main__":
    sys.exit(main(harness_name()) > 0)
