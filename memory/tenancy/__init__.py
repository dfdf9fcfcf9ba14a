"""Whose rows a transaction sees, and what guards them in the database.

    current_hash       which hash a user's rows carry now, while several HMAC keys are accepted
    open_doors         which door is open on which connection, and which user is bound
    steps              a sequence of statements, defined once for sync and async
    managers           querysets that exist inside a tenant's transaction only
    tenant_row         the row that every writer of a tenant locks first
    tenant_model       base of every model whose rows belong to one user
    cursors            psycopg cursors that speak binary, inside a tenant's transaction
    planner_settings   `SET LOCAL` for single statements
    policies           row-level security and grants, as SQL
    partitions, citus  the same tables, spread over partitions or servers
    census             what may be counted across tenants, by a role of its own
    live_database      refuses to serve from a database that does not protect tenants
    admin_page         the operators' list of tenants

`memory.rls`, which opens the doors, stands above this room. Imports `sealing` and `database`; no other room.
"""
