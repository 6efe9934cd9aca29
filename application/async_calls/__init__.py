"""How ``AsyncOrchestrator`` calls what blocks: a few threads, and the ways there and back."""
