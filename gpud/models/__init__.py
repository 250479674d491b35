"""What can be loaded, and what it costs."""
