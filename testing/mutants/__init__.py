"""Adapters with one fault each, and whether the contract suite finds it."""
