"""What a broker and its client can do at most: no library, no envelope, no guarantee but what a script must keep."""
