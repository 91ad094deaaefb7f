"""Thresholds: rules that are written, alerts that are raised."""
