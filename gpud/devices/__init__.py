"""What is there, and what it shows."""
