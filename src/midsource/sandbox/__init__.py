"""An SMTP sink with provider personalities and an inbox."""
