"""gpuctl: gpud on the command line. It knows gpud's API (gpud.v1) and nothing else of it."""

import os

# Read by grpcio when it is imported. gpuctl never forks, and what the C core logs on its own is
# told better by our errors; whoever wants those logs sets GRPC_VERBOSITY.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
