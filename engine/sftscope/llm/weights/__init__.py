"""Weights of unknown origin: checked before they are read, put into a model, and compared by their content."""
