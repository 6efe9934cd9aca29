"""The package as it is installed, but for one changed file."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mindtrace.jobs

from .mutant import ADAPTERS, Mutant


@contextmanager
def mutated_package(folder: Path, mutant: Mutant | None) -> Iterator[Path]:
    """Make the package with a fault in ``folder``.

    Args:
        folder: A folder that doesn't exist; it is removed at the end.
        mutant: The fault, or None for none.

    Yields:
        What PYTHONPATH must begin with, so that Python imports this package.

    Raises:
        ValueError: the mutant doesn't fit its file.
    """
    (installed,) = mindtrace.jobs.__path__
    package = folder / "mindtrace" / "jobs"
    shutil.copytree(installed, package, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    try:
        if mutant is not None:
            changed = package / "adapters" / Path(mutant.file).relative_to(ADAPTERS)
            text = mutant.apply(changed.read_text("utf-8"))
            changed.unlink()  # a link to the real file
            changed.write_text(text, "utf-8")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
