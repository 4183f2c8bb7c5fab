"""What may be searched, one module a kind of data."""
