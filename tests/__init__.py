"""Everything is tested from outside where it can be."""
