"""How a policy is applied: quantization and pruning, which meet only in `apply`."""
