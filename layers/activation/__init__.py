"""Elementwise functions: rectifiers, scales."""
