"""The program: configuration, search, execution, training, evaluation."""
