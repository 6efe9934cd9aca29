"""Who is told of jobs: observers and log records."""
