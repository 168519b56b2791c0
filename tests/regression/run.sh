#!/usr/bin/env bash
# PostgreSQL's own regression suite, once with PostgreSQL and once through the gateway; then every line of what both said is
# compared. The suite needs a superuser, so the workload's login becomes one, in a demo of this script's own.
#
# Usage: tests/regression/run.sh SOURCE [session|transaction]
# SOURCE is PostgreSQL's source of the server's major version (its src/test/regress has the suite). Needs gcc and the
# server's headers (Debian: postgresql-server-dev-NN). Exit code 1 if anything but what is known differs.
set -euo pipefail
source=$(realpath "$1")/src/test/regress
mode=${2:-session}
cd "$(dirname "$0")/../.."
program=$PWD/target/release/ringfence
[ -x "$program" ] || cargo build --release --locked -p ringfence
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
regress=$(dirname "$bin")/lib/pgxs/src/test/regress/pg_regress
[ -x "$regress" ] || { echo "missing: $regress" >&2; exit 2; }

work=$(mktemp -d /tmp/rf-regression.XXXXXX)
chmod 755 "$work"
cleanup() { exec 9>&- 8>&-; kill "${served:-}" 2> /dev/null || true; wait 2> /dev/null || true; }
trap cleanup EXIT
export PGPASSWORD=demo

cp -r "$source" "$work/suite"
gcc -shared -fPIC -O1 -I"$("$bin/pg_config" --includedir-server)" -I"$source" -o "$work/suite/regress.so" "$work/suite/regress.c"
chmod -R a+rX "$work/suite"

mkfifo "$work/hold"
"$program" demo --dir "$work/demo" --port 0 --users 5000 --until-stdin-ends < "$work/hold" > "$work/demo.log" 2>&1 &
exec 9> "$work/hold"
for _ in $(seq 300); do grep -q "ringfence demo is ready" "$work/demo.log" && break; sleep 0.2; done
sockets=$(realpath "$work/demo/us-trusted")
super() { psql -X -q -v ON_ERROR_STOP=1 -A -t "host=$sockets user=postgres dbname=$1" -c "$2"; }
port=$(sed -n 's/^listen = \["127.0.0.1:\([0-9]*\)".*/\1/p' "$work/demo/ringfence.toml")
psql -X -q "host=127.0.0.1 port=$port user=feed-service dbname=us" -c "select 1" > /dev/null
login=$(super us "select rolname from pg_roles where rolname like 'rf\_full\_%' and rolcanlogin limit 1")
super us "alter role $login superuser; alter role $login reset all; create role direct superuser login password 'demo'"

# A store for the suite's database, with the rules of the demo's.
python3 - "$work/demo" "$mode" << 'PY'
import pathlib, re, socket, sys
folder, mode = pathlib.Path(sys.argv[1]), sys.argv[2]
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
text = (folder / "ringfence.toml").read_text()
text = re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{port}", text, count=1).replace('dir = "ledger"', 'dir = "ledger-regression"')
store = next(s for s in re.split(r"(?=\[\[stores\]\])", text) if 'name = "us"' in s)
store = store.replace('name = "us"', 'name = "regression"').replace("dbname=us", "dbname=regression")
store = store.replace("full_access_role", f'pool_mode = "{mode}"\nfull_access_role')
(folder / "regression.toml").write_text(text + "\n" + store)
(folder / "regression.port").write_text(str(port))
PY

fresh() {
  super postgres "drop database if exists regression with (force)"
  super postgres "select format('drop owned by %1\$I; drop role %1\$I', rolname) from pg_roles where rolname like 'regress%'" | while read -r sql; do
    super postgres "$sql" > /dev/null 2>&1 || true
  done
  super postgres "create database regression template template0"
  super regression "create schema ringfence; alter database regression set lc_messages to 'C'; alter database regression set bytea_output to 'hex'"
}
run() { # run NAME HOST PORT USER
  mkdir -p "$work/$1"; chmod 777 "$work/$1"
  (cd "$work/$1" && umask 0 && PGTZ=PST8PDT "$regress" --use-existing --dbname=regression --host="$2" --port="$3" --user="$4" --bindir="$bin" \
    --inputdir="$work/suite" --outputdir="$work/$1" --dlpath="$work/suite" --schedule="$work/suite/parallel_schedule" > "$work/$1/summary" 2>&1) || true
  tail -n 6 "$work/$1/summary" | sed "s/^/$1: /"
}
fresh
run direct "$sockets" 5432 direct
fresh
"$program" serve --config "$work/demo/regression.toml" > "$work/serve.log" 2>&1 &
served=$!
sleep 2
run gateway 127.0.0.1 "$(cat "$work/demo/regression.port")" feed-service

# The two differ in the name of the user, and in what a connection keeps that was used before: its temporary schema is there
# already, so a transaction that only looks up the schema's name does not count as one that touched it (temp.sql).
sed -i "s/\b$login\b/direct/g" "$work"/gateway/results/*.out
diff -r "$work/direct/results" "$work/gateway/results" > "$work/DIFF" || true
known="< ERROR:  cannot PREPARE a transaction that has operated on temporary objects
> ERROR:  prepared transactions are disabled
> HINT:  Set max_prepared_transactions to a nonzero value."
grep '^[<>]' "$work/DIFF" > "$work/LINES" || true
echo "lines compared: $(cat "$work"/direct/results/*.out | wc -l); lines that differ: $(wc -l < "$work/LINES"); all of it is in $work"
if [ -s "$work/LINES" ] && [ "$(cat "$work/LINES")" != "$known" ]; then
  grep '^diff' "$work/DIFF"
  exit 1
fi
