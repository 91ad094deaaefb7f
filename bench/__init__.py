"""Measures the service beside what the machine allows: `python -m bench`. Every figure stands next to its floor."""
