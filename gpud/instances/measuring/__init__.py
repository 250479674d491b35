"""What loads are expected to take, and what they were seen to take."""
