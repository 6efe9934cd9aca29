"""What users await: the orchestrator and its queues from coroutines."""
