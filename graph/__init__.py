"""The language clients speak: types with their field methods, inputs and payloads."""
