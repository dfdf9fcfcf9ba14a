"""The Django database backend for Postgres (`ENGINE = "database"`): its pool, its roles, and the embedded server.

    base, pool, creation   the backend, its connection pool, test databases
    roles                  connections of the other roles: `census()`, `as_owner()`, `connect_as(role)`
    dsn, setup_sql         one set of connection parameters per role; the SQL that makes the roles
    embedded_postgres/     a whole server under one folder, for a machine without a DATABASE_URL

Imports no other package of this project; every other package may import it.
"""
