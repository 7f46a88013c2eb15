"""What views show, computed in the background and kept."""
