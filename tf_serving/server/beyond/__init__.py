"""What the server does beyond TensorFlow Serving, all of it off unless asked for; ``options`` puts it together."""
