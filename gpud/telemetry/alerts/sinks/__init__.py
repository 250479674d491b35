"""Whom alerts are sent to: each sink in its own time, tried again, and never waited for."""
