"""Mutated envelopes and foreign messages, straight into each backend: see ``__main__``."""
