"""Holding a promise for as long as something needs it: waiting, keeping, running inside it."""
