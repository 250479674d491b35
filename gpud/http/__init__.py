"""Plain HTTP for what does not speak gRPC."""
