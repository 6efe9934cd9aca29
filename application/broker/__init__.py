"""What the application knows of a broker and of the store beside it."""
