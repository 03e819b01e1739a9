"""PostgreSQL: connections, migrations, COPY, leases; one module per aggregate. And small files, whole and durable."""
