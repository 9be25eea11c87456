"""The losses, each on logits (fused with the softmax) and on probabilities, and Accuracy."""
