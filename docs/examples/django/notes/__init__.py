"""Notes, and how many words they have."""
