"""Prices of models: what stands in the table, and what a call costs by it."""
