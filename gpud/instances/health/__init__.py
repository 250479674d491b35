"""Whether an engine that serves is well, and what is done when it is not."""
