"""Whether a run is whole, and making whole again what can be."""
