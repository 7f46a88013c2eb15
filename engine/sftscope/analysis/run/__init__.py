"""Step files as arrays over the steps of a run."""
