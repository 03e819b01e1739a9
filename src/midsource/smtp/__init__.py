"""The sans-IO SMTP client session."""
