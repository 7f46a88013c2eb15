"""The engine of sftscope: fine-tuning, masked scoring, AND-OR decomposition, the store and the analysis."""
