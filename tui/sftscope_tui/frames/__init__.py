"""All that is on the screen at one moment."""
