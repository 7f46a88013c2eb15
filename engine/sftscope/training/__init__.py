"""Supervised fine-tuning: rows of data, examples as tokens, and the Trainer with a checkpoint grid."""
