"""What users call: ``Orchestrator`` and ``Consumer``, and what runs a job. Never imports an adapter."""

from .consumer import Consumer
from .consuming.loop import ConsumeStats
from .orchestrator import Orchestrator

__all__ = ["ConsumeStats", "Consumer", "Orchestrator"]
