"""The contract suite: one specification that every backend adapter must pass.

For an adapter of your own, in a test module::

    from mindtrace.jobs.contract import Harness, contract_suite

    class MyHarness(Harness):
        def make(self, namespace): ...      # connect a client to a namespace
        def crash(self, consumer): ...      # let a consumer die without settling
        def sever(self, backend): ...       # break its connections
        def destroy(self, namespace): ...   # clean up

    globals().update(contract_suite(MyHarness))

Needs the extra ``contract``. Names are imported when first asked for, so that pytest can load the options
of the suite without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .clauses import CLAUSES
    from .harness import Harness
    from .profiles import PROFILES, Profile
    from .pytest_suite import BORROWED, contract_suite
    from .run import Result, run_contract
    from .violation import ContractViolation

_MODULE_OF = {
    "BORROWED": "pytest_suite",
    "CLAUSES": "clauses",
    "ContractViolation": "violation",
    "Harness": "harness",
    "PROFILES": "profiles",
    "Profile": "profiles",
    "Result": "run",
    "contract_suite": "pytest_suite",
    "run_contract": "run",
}

__all__ = [
    "BORROWED",
    "CLAUSES",
    "PROFILES",
    "ContractViolation",
    "Harness",
    "Profile",
    "Result",
    "contract_suite",
    "run_contract",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
