"""The engine of the room: knows MongoDB, knows no domain."""
