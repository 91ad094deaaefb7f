"""Budgets of tokens: what may be spent in a scope, what has been, and what is held for calls under way."""
