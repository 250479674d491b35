"""Numbers over time, drawn with characters."""
