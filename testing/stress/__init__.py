"""A stress test: many threads use one client. See ``__main__``."""
