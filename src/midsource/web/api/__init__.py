"""The public REST API: the verbs of the command line over HTTP, described by OpenAPI. Loaded by the web process alone."""
