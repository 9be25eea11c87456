"""Layers that bring data into the net, and what they share."""
