"""What the signs of a device come to, and what is to be done about it."""
