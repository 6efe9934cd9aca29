"""A mutant: one adapter with one text replaced by another."""

from dataclasses import dataclass
from pathlib import Path

ADAPTERS = Path("adapters")


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault in one file of an adapter."""

    name: str
    file: str
    """Its path from the root of the repository."""
    old: str
    """The text that is replaced. It occurs once in the file."""
    new: str
    sentence: str = ""
    """What goes wrong, and where such a fault was seen; empty for a generated mutant."""
    clauses: tuple[str, ...] = ()
    """The clauses that the fault breaks; empty if nobody has said."""

    @property
    def backend(self) -> str:
        """The adapter's folder."""
        return Path(self.file).relative_to(ADAPTERS).parts[0]

    def apply(self, text: str) -> str:
        """Return the text of the file with the fault.

        Raises:
            ValueError: the text that is to be replaced doesn't occur exactly once.
        """
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: {self.file} has this text {count} times: {self.old!r}")
        return text.replace(self.old, self.new)
