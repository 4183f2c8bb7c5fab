"""Many trials in one graph: their weights stacked, and trained by the same operations."""
