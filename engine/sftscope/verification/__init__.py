"""Whether a run is intact, and repairing what can be."""
