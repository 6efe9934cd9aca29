"""Queues on the bare drivers: the most that a broker and its client can do, without library or envelope."""
