"""The command ``ha-qnx``: ``cli`` reads the command line, and each command has a module of its name."""
