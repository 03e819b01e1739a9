"""The marketing role: people, targeting, deliveries, hand-over, synchronisation."""
