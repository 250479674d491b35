"""How a node stands, as a person sees it in seconds: `gpuctl status` and `gpuctl top`."""
