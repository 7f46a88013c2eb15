"""Estimates from a sample of the masked states, for many words."""
