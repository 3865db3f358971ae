"""The command line: arguments in, files or a running service out. The top of the application; nothing imports it."""
