"""From a config to a run folder, and again to resume it."""
