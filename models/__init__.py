"""What is stored and the rules that keep it true. Knows MongoDB; has never heard of GraphQL."""
