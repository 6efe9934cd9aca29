"""What the application does with its process: signals and forks."""
