#!/bin/sh
# Runs a command with the variables of env files: with-env.sh FILE… -- COMMAND…
set -eu
set -a
while [ "$1" != -- ]; do
    . "$1"
    shift
done
set +a
shift
exec "$@"
