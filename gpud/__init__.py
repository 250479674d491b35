"""gpud: one daemon per GPU host."""

__version__ = "0.1.0"
