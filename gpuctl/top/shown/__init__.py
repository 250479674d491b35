"""What is on the screen, made from messages alone."""
