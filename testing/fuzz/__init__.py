"""A fuzz test: mutated envelopes and foreign messages in each backend. See ``__main__``."""
