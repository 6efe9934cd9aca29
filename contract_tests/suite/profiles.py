"""The profiles: how many examples the suite tries."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """How many examples the properties and the state machine run, and whether they are the same each time."""

    name: str
    property_examples: int
    waited_property_examples: int
    """As ``property_examples``, of those that wait, for a broker whose time must be waited for."""
    machine_examples: int
    waited_machine_examples: int
    """As ``machine_examples``, for a broker whose time must be waited for: an example then takes seconds."""
    machine_steps: int
    derandomize: bool
    shrink: bool = True
    """Whether an example that failed is made as small as it can be, or shown as it was found."""


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "quick",
            property_examples=10,
            waited_property_examples=4,
            machine_examples=30,
            waited_machine_examples=10,
            machine_steps=45,
            derandomize=True,
            shrink=False,
        ),
        Profile(
            "ci",
            property_examples=50,
            waited_property_examples=15,
            machine_examples=300,
            waited_machine_examples=50,
            machine_steps=50,
            derandomize=True,
        ),
        Profile(
            "random",
            property_examples=50,
            waited_property_examples=15,
            machine_examples=300,
            waited_machine_examples=50,
            machine_steps=50,
            derandomize=False,
        ),
        Profile(
            "thorough",
            property_examples=500,
            waited_property_examples=500,
            machine_examples=5000,
            waited_machine_examples=1000,
            machine_steps=80,
            derandomize=False,
        ),
    )
}
