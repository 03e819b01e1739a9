"""The asyncio shell: dialer, resolver, SMTP sender, system clock."""
