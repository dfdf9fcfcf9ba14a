"""Attacks on the isolation of tenants, by everybody who could try: against a real server, as the real roles.

    population    who is attacked: three users with rows of every table, and the values by which each is recognised
    sql           statements that could show a row, and the situations in which they are sent
    tally         how much was tried; printed at the end of a run
    chaos         on demand: everything is killed at random under load, `python -m tests.attacks.chaos --help`
    retries       mixed requests through every door while workers are killed; `python -m tests.attacks.retries --help`

docs/security.md names the test behind each promise.
"""
