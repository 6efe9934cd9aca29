"""One client under many threads: see ``__main__``."""
