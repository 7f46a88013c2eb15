"""The answer of a run where people look for it: a line in a terminal, JSON, an exit code, the end of a command."""
