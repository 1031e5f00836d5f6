"""Rivals of the hierarchical search: the same interface, the same byte target, as many rigorous measurements."""
