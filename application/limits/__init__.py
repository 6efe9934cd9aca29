"""Limits of rate and concurrency: a consumer backend that hands out a job once it may start."""
