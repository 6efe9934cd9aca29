"""Every error that this project raises on purpose: :class:`JobsError` and its tree, and ``JobTimedOut``."""

from mindtrace.jobs.domain.errors import *
from mindtrace.jobs.domain.errors import __all__ as __all__
