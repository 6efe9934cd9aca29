"""Building blocks for adapters, third-party ones included: receipts, records, the settings of a server.

Imports the ports and the domain, and no adapter.
"""
