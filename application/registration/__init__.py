"""Which schemas, queues and consumers an orchestrator has."""
