"""Tenants: which tenant's rows a transaction sees, and how the database isolates them.

    current_hash       finds the hash of a user's rows, while several HMAC keys are accepted
    open_doors         which door is open on which connection, and which user is bound
    steps              a sequence of statements, defined once for sync and async
    managers           querysets that work only inside a tenant's transaction
    tenant_row         the row that every writer of a tenant locks first
    row_set            the digest of the set of a tenant's rows, in that row
    tenant_model       base of every model whose rows belong to one user
    cursors            psycopg cursors with binary parameters, inside a tenant's transaction
    planner_settings   `SET LOCAL` for single statements
    policies           row-level security and grants, as SQL
    partitions, citus  the same tables, spread over partitions or servers
    census             lists and counts tenants, by a database role of its own
    live_database      refuses to serve from a database that does not protect tenants
    bypasses           ways past the policies: views, definers' functions, defaults
    admin_page         the operators' list of tenants

`memory.rls`, which opens the doors, imports this room. It imports `sealing`, `keys` and `database`; no other room.
"""
