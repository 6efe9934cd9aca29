"""Defaults that several layers share."""

DEFAULT_LEASE_S = 30.0
"""How long a consumer has a job without extending its lease, in seconds."""
DEFAULT_RESULT_TTL_S = 3600.0
"""How long the result of a job is kept, and that it was cancelled, in seconds."""
