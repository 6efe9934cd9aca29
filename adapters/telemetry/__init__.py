"""Observers for the tools of the field: Prometheus (extra ``metrics``), OpenTelemetry (extra ``tracing``).

Names follow OpenTelemetry's semantic conventions for messaging.
"""
