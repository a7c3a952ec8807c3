# shellcheck shell=bash
# PostgreSQL in the hub, for the store's tests and for a dispatcher that runs on it.

database_folder() { echo "$STATE/postgres"; }
database_password() { cat "$STATE/pki/postgres.password"; }
database_url() { echo "postgres://invoke:$(database_password)@127.0.0.1:5432/invoke"; }

# Debian keeps the server's programs out of PATH, in a folder that carries its version.
database_program() {
    local programs=(/usr/lib/postgresql/*/bin/"$1")
    echo "${programs[-1]}"
}

as_postgres() { setpriv --reuid postgres --regid postgres --init-groups "$@"; }

start_postgres() {
    local folder
    folder=$(database_folder)
    [[ -e $folder/data/PG_VERSION ]] || database_create
    # Left behind by SIGKILL. PostgreSQL believes it for as long as the number names any process, even one that is
    # dead and only waits to be buried; we know that ours does not run.
    rm -f "$folder/data/postmaster.pid" "$folder/socket/.s.PGSQL.5432.lock"
    process_start postgres in_hub setpriv --reuid postgres --regid postgres --init-groups \
        "$(database_program postgres)" -D "$folder/data" -h 127.0.0.1 -p 5432 -k "$folder/socket"
}
# SIGINT: end connections and stop. SIGTERM would wait until the last client leaves of its own accord.
stop_postgres() { process_stop postgres INT 10; }
address_postgres() { echo 127.0.0.1:5432; }
healthy_postgres() { in_hub "$(database_program pg_isready)" --quiet --host "$(database_folder)/socket" --port 5432; }

database_await() {
    await postgres 30 healthy_postgres
    local folder
    folder=$(database_folder)
    [[ ! -e $folder/.complete ]] || return 0
    # CREATEDB: each test makes a database of its own.
    database_query "CREATE ROLE invoke LOGIN CREATEDB PASSWORD '$(database_password)'"
    database_query "CREATE DATABASE invoke OWNER invoke"
    touch "$folder/.complete"
}

database_query() {
    as_postgres psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --host "$(database_folder)/socket" --dbname postgres <<<"$1"
}

# The data folder appears by rename, so a killed initdb leaves none.
database_create() {
    local folder
    folder=$(database_folder)
    rm -rf "$folder"
    [[ -s $STATE/pki/postgres.password ]] || random_password >"$STATE/pki/postgres.password"
    mkdir -p "$folder/socket"
    chown -R postgres:postgres "$folder"
    # Over TCP a password is asked for; the socket is only for who is already this user.
    (cd "$folder" && as_postgres "$(database_program initdb)" --pgdata "$folder/unfinished" --encoding UTF8 --locale C.UTF-8 \
        --auth-local peer --auth-host scram-sha-256) >"$(part_log postgres)" 2>&1 || fail_part postgres "initdb failed"
    mv "$folder/unfinished" "$folder/data"
}
