"""Terms that several methods share: pure functions of tensors, one equation each. Weights stay with the caller."""
