"""What NVML tells of one card, call by call; devices/nvml.py is the driver made of it."""
