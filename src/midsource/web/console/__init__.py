"""The console of a marketing instance: pages rendered on the server, in three languages."""
