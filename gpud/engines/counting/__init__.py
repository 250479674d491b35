"""What engines count: their metrics read within bounds, and what they come to in any engine."""
