"""v(x_T), the score of every masked state: masking, the prefix tree, and the checks of both."""
