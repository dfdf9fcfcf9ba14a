"""Verbs of several modules; the others (`memory.indexing`, `memory.listing`, …) are modules at the root of `memory`.

    expiry          purges chunks that have expired
    patching        changes a chunk, or a document, where it is stored
    exporting       everything of one user as a stream of lines, as of one moment
    restoring       exported chunks stored again as they were
    planned_chunks  chunks as a change would store them, beside what they were

Imports the rooms below and the verbs at the root.
"""
