"""Remove a throw-away cluster when the process that holds our standard input ends, whatever ended it."""

import sys

from project import embedded_postgres

if __name__ == "__main__":
    sys.stdin.read()
    embedded_postgres.destroy(sys.argv[1])
