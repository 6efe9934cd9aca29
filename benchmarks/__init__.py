"""Benchmarks: how fast this project and other job queues are, side by side in one run."""
