"""Versions of agents, their runs, and what these come to, as clients see and report them."""
