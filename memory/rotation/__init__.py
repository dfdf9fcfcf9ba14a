"""Every row to a new key, and whether all of them still open.

    encryption_key   the mover of the encryption key: re-seals rows under a new one
    resealing        rows of one tenant and table, re-sealed or opened batch by batch
    hmac_key         the mover of the HMAC key: users go to the hashes, rows to the form, that a new one makes
    tenant_move      one tenant's move: copied in windows, then flipped in one short transaction
    tenant_copy      rows read under one user hash, rebuilt and written under another
    orphans          rows under a hash that is no tenant's, deleted
    user_ids         a tenant's sealed user id, opened and compared with its hash
    integrity        inspects every tenant: whether all opens, and whether the index says what the seals say
    row_integrity    a tenant's rows compared with their seals
    findings         what such an inspection found

Imports `index`, `tenancy`, `sealing`, `memory.rls` and `keys`; no other room.
"""
