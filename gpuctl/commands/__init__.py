"""One file per noun; main.py says which command lives where."""
