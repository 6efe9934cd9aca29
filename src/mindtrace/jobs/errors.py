"""Every error that this project raises on purpose, in one tree under :class:`JobsError`."""

from mindtrace.jobs.domain.errors import *
from mindtrace.jobs.domain.errors import __all__ as __all__
