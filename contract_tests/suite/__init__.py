"""The contract suite: what every backend adapter must pass."""
