"""The product: what users' memories are, who may reach them, how they are found.

The specification's own modules stand here: `security` (seal and open), `rls` (the transaction that names the tenant),
`indexing` (storing). Beside them the other verbs (`listing`, `erasure`, `importing`) and what Django looks for by name
(`models`, `admin`, `checks`, `apps`), errors (`exceptions`), counters
(`metrics`) and spans (`tracing`). Everything else has a room; each imports only rooms that stand before it here:

    sealing/     plain values into sealed columns and back
    tenancy/     whose rows a transaction sees, and what guards them in the database
    access/      who calls, and for which user
    index/       what is stored so that a chunk can be found: vectors, keywords, labels
    documents/   what a client gives, as documents of checked chunks
    search/      a question in, the best chunks out
    rotation/    every row to a new key, and whether all of them still open
    verbs/       verbs of several modules: changing what is stored
    operations/  calls accepted now and done later, and requests carried out once
    api/         the verbs over HTTP, and as tools of an agent
    benchmarks/  what it costs, and beside others
    training/    how the small cross-encoder comes about

Imports go down only: `tests/test_rooms.py` asserts it. A picture is in `docs/architecture.md`.
"""
