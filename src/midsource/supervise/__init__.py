"""What keeps a home alive on one machine: its embedded PostgreSQL and its processes.

``postgres``: for whoever needs the database · ``postgres_holder``: the process that owns the server · ``processes``: the
supervisor behind ``midsource up`` · ``control``: asking it · ``locks``, ``spawn``, ``logs``, ``restart``: what both stand on.
"""
