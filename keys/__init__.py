"""Keys: which one seals, which also open, and the engine that runs a rotation.

    keyring, held_keys              the keys of this process, from the environment; by purpose
    generation, checks              new keys; what is wrong with those there are
    nonces, nonce_budget            counts the seals of this process; those of all, and when a key may seal no more
    heartbeat, live_keys, process   which keys every serving process holds
    rotation, movers                the engine of a rotation; what it asks of the rows, which it does not know
    runs, leases, pace, steps       the record of a rotation, one at a time, how fast, named steps
    retry_while_away                repeats work while the database is away
    status, admin, models           what is known about keys, for an operator; never key material

A leaf: knows no table of memory's. The application registers how its rows are rotated.
"""
