"""PostgreSQL: connections, migrations, COPY, leases; one module per aggregate."""
