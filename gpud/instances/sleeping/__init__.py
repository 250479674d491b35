"""Engines that let their weights go for a while."""
