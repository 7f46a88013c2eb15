"""How fast this machine does the reference work."""
