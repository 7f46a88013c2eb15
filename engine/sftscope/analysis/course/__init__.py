"""The course of a run: where curves turn, and the three events."""
