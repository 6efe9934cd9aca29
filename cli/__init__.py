"""The command line, ``mindtrace-jobs``: an inbound adapter. It calls the application, and decides nothing."""
