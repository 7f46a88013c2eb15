"""Where a user is, which keys lead elsewhere, and what is remembered."""
