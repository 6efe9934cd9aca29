"""Gates: whether a job that was taken may run, and what its end changes."""
