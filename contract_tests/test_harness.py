"""What the suite says of a harness with which it proves less."""

import warnings

import pytest

from mindtrace.jobs.contract import run_contract
from mindtrace.jobs.contract.checks.leftovers import NoSecretsWarning
from mindtrace.jobs.contract.missing_hooks import untried

from .harnesses import LocalHarness


class ForgetfulHarness(LocalHarness):
    secrets = ()


def test_what_a_harness_has_no_hook_for_is_said_with_the_clauses() -> None:
    results = list(run_contract(LocalHarness(), profile="quick", clauses=["PUB-4"]))
    lines = untried((result.missing_hooks, result.clauses) for result in results)

    assert not [result for result in results if result.broken]
    hooks = [line.partition("'s ")[2].partition(":")[0] for line in lines]
    assert hooks == ["cut_off", "cut_request", "refuse"]
    assert all("PUB-4" in line for line in lines)


class PasswordHarness(LocalHarness):
    secrets = ("correct-horse",)


def test_a_harness_that_names_no_secrets_is_warned_of() -> None:
    with pytest.warns(NoSecretsWarning, match="Forgetful: the harness names no secrets"):
        results = list(run_contract(ForgetfulHarness(), profile="quick", clauses=["SEC-3"]))

    assert not [result for result in results if result.broken]


@pytest.mark.parametrize("harness", [LocalHarness, PasswordHarness], ids=["has none", "names them"])
def test_a_harness_that_says_what_is_secret_is_not(harness: type[LocalHarness]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = list(run_contract(harness(), profile="quick", clauses=["SEC-3"]))

    assert not [result for result in results if result.broken]
