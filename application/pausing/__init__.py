"""Queues that take jobs while their consumers take none."""
