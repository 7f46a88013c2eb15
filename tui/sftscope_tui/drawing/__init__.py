"""Colours, numbers and safe lines, and the update of what changed."""
