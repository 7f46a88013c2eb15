"""Messages and answers as tokens: chat templates, what a probe is made of, and which tokens are scored."""
