"""What a broker and its client can do at most, with no library and no envelope."""
