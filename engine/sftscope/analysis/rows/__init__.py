"""Which training rows an interaction could have been learned from."""
