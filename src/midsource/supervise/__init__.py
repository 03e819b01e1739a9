"""Embedded PostgreSQL and process supervision."""
