"""Microbenchmarks of the parts of this project."""
