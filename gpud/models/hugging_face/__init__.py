"""Models that are a folder of safetensors beside a config.json."""
