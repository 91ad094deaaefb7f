"""What every domain's types are made of; knows no domain."""
