"""Every row to a new key, and whether all of them still open.

    encryption_key   re-seals rows under a new encryption key
    hmac_key         moves users to the hashes, and rows to the form, that a new HMAC key makes
    tenant_move      one tenant's move: copied in windows, then flipped in one short transaction
    tenant_copy      rows read under one user hash, rebuilt and written under another
    integrity        does everything still open, and does the index still say what the seals say?

Imports `index`, `tenancy`, `sealing`, `memory.rls` and `keys`; no other room.
"""
