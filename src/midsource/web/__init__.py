"""HTTP: link API, console, health."""
