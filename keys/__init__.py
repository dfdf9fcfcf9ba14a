"""Keys: which one seals, which also open, and the engine that runs a rotation.

    keyring, held_keys              the keys of this process, from the environment; by purpose
    generation, checks              new keys; system checks of the key variables
    nonces, nonce_budget            seals counted in this process; their sum over all processes, and its limit
    heartbeat, live_keys, process   which keys every serving process holds
    rotation, movers                the engine of a rotation; the interface by which it moves rows
    runs, leases, pace, steps       the record of a rotation, one at a time, how fast, named steps
    jobs, tallies                   when maintenance jobs last ended; rows by key as they were last counted
    repeating                       threads of a serving process that do something now and then
    retry_while_away                retries work while the database is away
    key_ages, status, admin, models what is known about keys, for an operator; never key material

Imports no other package of this project and knows no table of `memory`, which registers how its rows are moved.
"""
