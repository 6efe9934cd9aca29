"""What is said of an attempt, a handler or a call that failed."""
