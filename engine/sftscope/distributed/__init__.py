"""N workers on one run: processes of this host, or jobs of a cluster."""
