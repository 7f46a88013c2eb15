"""Language models as both training and extraction need them: loading, adapters, prompts as tokens."""
