"""Signals of the operating system, as a program that runs jobs meets them."""
