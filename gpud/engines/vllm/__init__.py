"""How to speak to vLLM: options, command line, output, program, server."""
