"""What several processes on one run say to each other through its folder."""
