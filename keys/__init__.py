"""Keys: which one seals, which also open, and the engine that runs a rotation.

    keyring, generation, checks     the keys of this process, from the environment; new ones; what is wrong with them
    nonces                          how often a key may still seal
    heartbeat, live_keys, process   which keys every serving process holds
    rotation, runs, leases, steps   a rotation: its passes, its record, one at a time, named steps
    status, admin, models           what is known about keys, for an operator; never key material

A leaf: knows no table of memory's. The application registers how its rows are rotated.
"""
