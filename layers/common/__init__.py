"""Layers that most nets have: fully connected ones, Dropout."""
