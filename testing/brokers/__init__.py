"""Real brokers for the tests that need one: found, or started, and stopped again."""
