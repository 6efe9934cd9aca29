"""What every test folder shares."""

pytest_plugins = ["brokers.fixtures"]
