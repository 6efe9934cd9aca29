"""The field side by side: how fast this project is, and how fast others are, in one run."""
