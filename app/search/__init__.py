"""The search algorithms; numpy and scipy only."""
