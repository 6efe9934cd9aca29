"""A long run with faults on a real broker: is every job accounted for, and does nothing grow?"""
