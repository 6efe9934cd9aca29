"""How a consumer works through its queue: receive, execute, settle, and keep the leases meanwhile."""
