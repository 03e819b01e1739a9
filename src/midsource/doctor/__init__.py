"""Checks, healing and drills."""
