"""gRPC: values in, protobuf out."""
