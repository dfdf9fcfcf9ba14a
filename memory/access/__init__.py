"""Identifies the caller of a request, and the user whose memory it may reach.

    identity          canonical user ids; the caller as an `Identity`
    scopes            what a token may do
    tokens            bearer tokens and the services that hold them (models)
    token_look_up     finds the token of a request by one prepared statement
    authentication    from a request's credential to an `Identity`, and to DRF
    client_address    where a request comes from, behind proxies too
    rates             counts calls in time windows, for throttles
    middleware        binds the user for the length of a request
    bound_statements  gives each statement of a bound user a door of its own

Imports `sealing` (with `memory.security`), `tenancy` and `memory.rls`; no other room.
"""
