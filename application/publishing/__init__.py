"""How single jobs that are published at the same time reach the broker together."""
