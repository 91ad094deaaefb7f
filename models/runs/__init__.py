"""Versions of agents, their runs, and the metrics that are kept of these."""
