"""What lets event loops call what blocks: a few threads, and the ways there and back."""
