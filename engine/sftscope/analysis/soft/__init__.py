"""How much was removed, preserved and emerged, without a threshold."""
