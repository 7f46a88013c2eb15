"""What a user gives: settings, presets, probes."""
