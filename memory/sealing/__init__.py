"""Seals plain values into sealed columns, and opens them.

    codecs        str, JSON object, context, float32 vector as bytes; `SealedBytes`, the only type of sealed columns
    opening       opens the seals of a row: counts, drift, and the error of a seal that does not open
    fields        `SealedTextField`, `SealedJSONField`, `SealedContextField`, `SealedVectorField`
    answer_bytes  how many rows' seals fit into one answer
    handles       ids for a service's clients, which carry whose row they name
    row_macs      MACs of stored rows, by which an edited, swapped or copied cell is refused
    subkeys       a tenant's keys for vectors, keywords and labels, derived from the HMAC key

Imports `memory.security`, `memory.exceptions`, `memory.metrics` and `keys`; no other room. It sends no SQL.
"""
