"""Moves rows to a new key, and verifies that all of them still open.

    encryption_key   the mover of the encryption key: re-seals rows under a new one
    resealing        rows of one tenant and table, re-sealed or opened batch by batch
    hmac_key         the mover of the HMAC key: gives users new hashes, and rebuilds their rows under these
    tenant_move      one tenant's move: copied in windows, then flipped in one short transaction
    tenant_copy      rows read under one user hash, rebuilt and written under another
    orphans          deletes orphans: rows under a hash that no tenant has
    user_ids         a tenant's sealed user id, opened and compared with its hash
    integrity        inspects every tenant: whether its seals open, and whether the index matches them
    row_integrity    the same for a tenant's rows
    set_integrity    the same for the set of them: none deleted, replayed or rolled back
    other_rows       rows of other sealed tables, as the queue's: moved, and inspected
    findings         what such an inspection found

Imports `index`, `tenancy`, `sealing`, `memory.rls` and `keys`; no other room.
"""
