"""Windows above a view, the line that is typed into, and their texts."""
