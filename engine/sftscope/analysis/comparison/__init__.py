"""Two runs: which interactions both encode, and with what sign."""
