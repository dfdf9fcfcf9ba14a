"""Whose rows a transaction sees, and what guards them in the database.

    current_hash       which hash a user's rows carry now, while several HMAC keys are accepted
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

`memory.rls` is the room's front door and stands at the root, where the specification has it. Imports `sealing` and
`database`; no other room.
"""
