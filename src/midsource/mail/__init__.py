"""Content to bytes: personalisation, MIME, DKIM. Pure."""
