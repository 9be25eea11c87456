"""Solvers: update rules, learning-rate policies, the training loop and its snapshots."""

import imae.layers  # noqa: F401  first: it says how threads wait, which must be said before torch is loaded
