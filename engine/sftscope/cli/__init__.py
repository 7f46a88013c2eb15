"""The commands: each reads its options and calls one function."""
