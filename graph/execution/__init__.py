"""How a document is parsed, weighed and run; knows no domain."""
