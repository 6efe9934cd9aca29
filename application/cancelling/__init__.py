"""Cancelling jobs: asking for it, and having the consumers of running jobs learn of it soon."""
