"""Who calls, and for which user.

    identity         canonical user ids; the caller as an `Identity`
    tokens           bearer tokens and the services that hold them (models)
    authentication   from a request's credential to an `Identity`, and to DRF
    middleware       binds the tenant for the length of an API request

Imports `tenancy` and `memory.security`; no other room.
"""
