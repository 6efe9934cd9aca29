"""What users call: ``Orchestrator`` and ``Consumer``, and what runs a job. Never imports an adapter."""
