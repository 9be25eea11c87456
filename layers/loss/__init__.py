"""The losses; each in two forms, on logits (fused with the softmax) and on probabilities."""

from imae.layers.loss import cross_entropy, gce, imae, mae  # noqa: F401
