"""Durable jobs and ticks; the only importer of DBOS."""
