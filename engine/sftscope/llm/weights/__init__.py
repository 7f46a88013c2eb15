"""Weights of unknown origin: checked before they are read, put into a model, and told apart by their content."""
