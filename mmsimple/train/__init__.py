"""Training: what happens to the weights, update by update."""
