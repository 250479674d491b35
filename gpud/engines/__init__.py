"""How to speak to one kind of engine."""
