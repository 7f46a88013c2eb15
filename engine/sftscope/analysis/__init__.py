"""The analysis: from stored effects to what SFT removed, preserved and invented. Never imports torch."""
