"""Secrets, account keys, console access."""
