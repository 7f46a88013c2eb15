"""What the sets mean: the verdict, the findings of the paper, and what could be said while it trained."""
