"""The command line: a verb for each step of the journey."""
