"""Technical workflows: one module each, all of one shape."""
