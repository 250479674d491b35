"""One engine's process tree: started gated, placed, contained, watched, ended."""
