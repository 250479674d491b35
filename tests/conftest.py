"""Fixtures only; the ladder that the tests stand on is in README.md."""

from __future__ import annotations
