"""Usage as clients report and read it."""
