"""New requests turned away, those in flight let finish."""
