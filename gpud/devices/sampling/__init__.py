"""Reading the drivers, in a process of its own."""
