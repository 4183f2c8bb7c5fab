"""Metrics, intervals, baselines and reports; no TensorFlow."""
