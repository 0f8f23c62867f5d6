"""One training step: mask, encode, decode, score, update the weights."""
