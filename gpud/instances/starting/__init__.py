"""How an engine comes to run inside its promise: its turn, its checks, what it is bound to."""
