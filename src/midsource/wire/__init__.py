"""The contract between the halves: schema, client, credentials."""
