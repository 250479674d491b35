"""The laws of llama-server's memory, one file for each kind of bytes."""
