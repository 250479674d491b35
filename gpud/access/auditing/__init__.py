"""The audit in parts: its file, and how often the same refusal is told."""
