"""What users call: orchestrators, queues, consumers and decorators."""
