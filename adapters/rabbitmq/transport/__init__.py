"""Connections to RabbitMQ: who does their I/O, how they come back, and all that knows pika's inside."""
