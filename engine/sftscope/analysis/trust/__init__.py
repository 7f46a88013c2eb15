"""How far to believe a conclusion: certificates, noise, other thresholds, other noise bounds, other solvers."""
