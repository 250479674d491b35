"""How to speak to llama.cpp: options, command line, output, server."""
