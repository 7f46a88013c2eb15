"""Which interactions count, and which were removed, preserved and newly emerged; the numbers of every view."""
