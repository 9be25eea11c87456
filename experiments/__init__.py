"""Experiments: the demo, the paper's tables and figures, and retrieval evaluation."""
