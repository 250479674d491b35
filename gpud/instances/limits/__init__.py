"""What one instance may take of the host."""
