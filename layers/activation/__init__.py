"""Functions of single elements, and scales and biases along axes."""
