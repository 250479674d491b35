"""Where a gpud is, and how gpuctl proves there who calls."""
