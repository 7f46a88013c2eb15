"""The 2^n masked states of n words, and the transforms between scores and interactions."""
