"""Worker processes: one that runs consumers on threads, and the supervisor of several."""
