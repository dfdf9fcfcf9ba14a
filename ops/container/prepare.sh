#!/bin/sh
# Makes what the containers of compose.yaml need before they start, once: keys, passwords, and SQL for the roles.
#
#   SECRETS/service.env   keys, and the connections of what serves
#   SECRETS/owner.env     the connection of what migrates; SECRETS/backup.env of what dumps
#   SECRETS/setup.sql     for the superuser; passwords.env: what it reads from the environment
#   SECRETS/postgres_password, SECRETS/metrics_token
#
# Losing the keys loses every text: copy service.env to a place of its own.
set -eu
umask 077
folder=$1 server=$2
[ -e "$folder/service.env" ] && exit 0

random() { python -c 'import secrets; print(secrets.token_hex(24))'; }
url() { echo "$1='postgresql://$2:$3@$server'"; }

app=$(random) census=$(random) owner=$(random) backup=$(random) token=$(random)
random > "$folder/postgres_password"
echo "$token" > "$folder/metrics_token"
{
    echo "MEMORY_APP_PASSWORD=$app"
    echo "MEMORY_CENSUS_PASSWORD=$census"
    echo "MEMORY_OWNER_PASSWORD=$owner"
    echo "MEMORY_BACKUP_PASSWORD=$backup"
} > "$folder/passwords.env"
python manage.py database_setup --print-sql > "$folder/setup.sql"
url DATABASE_OWNER_URL memory_owner "$owner" > "$folder/owner.env"
url DATABASE_BACKUP_URL memory_backup "$backup" > "$folder/backup.env"
rm -f "$folder/new.env"
python manage.py generate_keys --env-file "$folder/new.env" > /dev/null
{
    url DATABASE_URL memory_app "$app"
    url DATABASE_CENSUS_URL memory_census "$census"
    echo "METRICS_TOKEN=$token"
} >> "$folder/new.env"
# Last, and in one step: whatever is killed before is made anew.
mv "$folder/new.env" "$folder/service.env"
