"""The machine beside its devices: CPUs, RAM, swap, stalls, memory nodes, disks."""
