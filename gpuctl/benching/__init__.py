"""What `gpuctl bench` shows of benchmarks."""
