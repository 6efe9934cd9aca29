"""What was measured, as values that are written to a file and read back."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

COMPARISON = "field"
"""The scenario whose figures compare all libraries, as files of results name it."""
HELD = "held snapshot"
"""The scenario in which a transaction is held open."""
OURS, INCUMBENT = "this project", "mindtrace-jobs 0.16"
TITLES = {
    "memory": "In memory",
    "sqlite": "SQLite",
    "redis": "Redis",
    "rabbitmq": "RabbitMQ",
    "postgresql": "PostgreSQL",
}
"""What the page calls each broker."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The subject of a figure: a library on a broker."""

    broker: str
    library: str
    guarantee: str
    settings: str
    versions: dict[str, str]
    python: str


@dataclass(slots=True)
class Figure:
    """One figure of one subject: a value a round."""

    scenario: str
    broker: str
    library: str
    name: str
    unit: str
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return median(self.values)


@dataclass(slots=True)
class Results:
    """All figures of one run, which may be compared with one another and with no others."""

    machine: dict[str, str]
    rounds: int
    subjects: list[Subject] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """Rounds of peers that had to be run again, and why."""

    def add(self, scenario: str, broker: str, library: str, name: str, unit: str, value: float) -> None:
        """Add one round's value."""
        found = self.find(scenario, broker, library, name)
        if found is None:
            found = Figure(scenario, broker, library, name, unit)
            self.figures.append(found)
        found.values.append(value)

    def introduce(self, subject: Subject) -> None:
        if all((one.broker, one.library) != (subject.broker, subject.library) for one in self.subjects):
            self.subjects.append(subject)

    def find(self, scenario: str, broker: str, library: str, name: str) -> Figure | None:
        key = (scenario, broker, library, name)
        for one in self.figures:
            if (one.scenario, one.broker, one.library, one.name) == key:
                return one
        return None

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")

    @classmethod
    def read(cls, path: Path) -> "Results":
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return cls(
            found["machine"],
            found["rounds"],
            list({(one["broker"], one["library"]): Subject(**one) for one in found["subjects"]}.values()),
            [Figure(**one) for one in found["figures"]],
            found["failures"],
        )


def ratio(ours: Figure, theirs: Figure) -> float:
    """The median of the ratios, round by round: what disturbs a round disturbs both."""
    return median(one / other for one, other in zip(ours.values, theirs.values, strict=False))
