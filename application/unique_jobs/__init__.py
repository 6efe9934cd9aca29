"""Jobs of which one at a time is in a queue: their records, and how consumers free their keys."""
