"""Load on a running model server, ours or TensorFlow Serving's: latency at a rate, and the highest rate that holds."""
