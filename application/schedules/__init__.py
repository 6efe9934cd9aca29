"""Schedules: their records in the coordination store, and the scheduler that publishes their jobs."""
