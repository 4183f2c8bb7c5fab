"""Keras layers that the spaces use; registered under the package name tamiz."""
