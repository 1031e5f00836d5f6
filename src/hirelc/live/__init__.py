"""What a run shows in a terminal while it goes."""
