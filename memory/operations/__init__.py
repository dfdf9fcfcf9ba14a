"""Index calls that are accepted at once and done later.

    queue       accepted calls as rows of their users: accept, claim, follow, finish, hand back, purge; and their limits
    due         finds, by the census, whose calls wait; sees no id and no content
    execution   does a claimed call: what the synchronous call does, and the answer in the same transaction
    worker      a thread in a serving process, or `manage.py work`
    maintenance what an operator asked for in the admin: verify, purge
    idempotency requests with an Idempotency-Key: carried out once, their answers kept

A call's documents and the row that says that they are stored are written by one transaction, so whoever is killed
wherever, nothing is stored twice. Imports the verbs and the rooms under them.
"""
