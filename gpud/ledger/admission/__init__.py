"""Pure: whether a request is granted now, on which devices, or waits, and why."""
