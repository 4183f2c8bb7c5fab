"""From bytes to batches; knows no model."""
