"""The faults that `make mutants` puts into the adapters: each fits the text that it changes."""

from pathlib import Path

import pytest

from mindtrace.jobs.contract import CLAUSES
from mutants.generated import all_mutants
from mutants.incidents import BY_BACKEND
from mutants.mutant import Mutant

BY_HAND = [mutant for mutants in BY_BACKEND.values() for mutant in mutants]


@pytest.mark.parametrize("mutant", BY_HAND, ids=lambda mutant: f"{mutant.backend}-{mutant.name}")
def test_a_fault_fits_its_file(mutant: Mutant) -> None:
    text = Path(mutant.file).read_text("utf-8")

    assert mutant.apply(text) != text
    assert mutant.sentence.endswith(".")
    assert set(mutant.clauses) <= CLAUSES.keys()
    assert mutant.clauses


@pytest.mark.parametrize("backend", ["local", "sqlite", "redis", "rabbitmq", "postgresql"])
def test_a_generated_mutant_fits_its_file(backend: str) -> None:
    texts: dict[str, str] = {}
    for mutant in all_mutants(backend):
        text = texts.setdefault(mutant.file, Path(mutant.file).read_text("utf-8"))
        assert mutant.apply(text) != text, mutant.name
