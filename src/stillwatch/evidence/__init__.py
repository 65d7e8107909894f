"""What a stranger can check: the transparency log and its proofs. Knows nothing of how findings came about."""
