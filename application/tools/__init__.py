"""What the command line does with queues, for any program to do."""
