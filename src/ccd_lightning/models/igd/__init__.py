"""The networks of IGD."""
