"""A private CA for a small fleet: what it issues, and the folder that it lives in."""
