"""What is stored so that a chunk can be found.

    chunking         long texts into chunks that the embedding model reads whole
    context          the header of title, author and time that is embedded in front of a text
    embedding        texts into vectors, by the model that the settings name, through its engine
    embedding_runtime that engine: from settings to a loaded model
    embedding_metrics what it tells Prometheus
    embedding_keeper keeps the model of a serving process usable
    embedders/       what computes vectors: ONNX Runtime, torch, a server
    vectors          vectors checked, and in the form in which they are stored and compared
    vector_rotation  the tenant-keyed rotation of that form
    text_analysis    text into terms: folding, stop words, stemming
    bm25             terms into BM25 weights under keyed hashes
    keywords         those weights as a stored sparse vector
    labels           keyed hashes of filterable metadata
    names            the names of documents and sources as they are stored: readable, or keyed labels
    name_field       those names as fields of the models
    uuid7            ids of new rows
    tables           INSERT and UPDATE of many rows, for plain Postgres and Citus
    rows             the shape of a stored row, from plain chunk to SQL parameters
    changed_rows     changes of stored rows: metadata in place, everything else as a new row
    saved_chunks     keeps the index in step with chunks that the ORM saves and deletes
    stored_rows      rows as they are stored: read back and opened
    stored_macs      the MACs of stored rows, compared and made anew where a row is changed in place
    completed_macs   gives rows from before there were MACs theirs
    missing_macs     finds tenants whose rows have none yet
    recipe           index settings, recorded per tenant
    stale_settings   notices tenants that were indexed by other settings
    tail             indexes a large tenant's newest rows in the vector graph and the postings
    dry_run          runs every statement of the write path once and takes it back
    reindexing       tenants that the settings do not describe, brought over one by one
    name_reindex     all names of one tenant brought to the other form
    tenant_reindex   one tenant brought to another recipe, while it is read and written

Imports `sealing`, `tenancy` and `memory.rls`; no other room.
"""
