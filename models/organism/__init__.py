"""The organism: what its file declares, and what a reload changes."""
