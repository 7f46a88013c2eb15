"""Before anything runs: what it will take, and what will be trained and masked."""
