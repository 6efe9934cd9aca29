"""Handlers that hang, many times, beside load: each is ended in time, and no other job pays for it."""
