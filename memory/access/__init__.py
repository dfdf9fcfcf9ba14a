"""Who calls, and for which user.

    identity          canonical user ids; the caller as an `Identity`
    tokens            bearer tokens and the services that hold them (models)
    authentication    from a request's credential to an `Identity`, and to DRF
    client_address    where a request comes from, behind proxies too
    rates             counts calls in windows, for throttles
    middleware        binds the user for the length of a request
    bound_statements  gives statements of a bound user a door of their own

Imports `tenancy`, `memory.rls` and `memory.security`; no other room.
"""
