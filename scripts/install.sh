#!/usr/bin/env bash
# Installs what building, testing or measuring needs, on Debian and its kin; elsewhere it says what is missing.
# Usage: scripts/install.sh build|page|test|bench …
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
need() { # need COMMAND-OR-PATH PACKAGE…
  local probe=$1; shift
  if [ "${probe#/}" != "$probe" ]; then
    compgen -G "$probe" > /dev/null || missing+=("$@")
  else
    command -v "$probe" > /dev/null 2>&1 || missing+=("$@")
  fi
}

need_repack() {
  # Tables are written anew in use with it; it is of the server's version.
  version=$({ ls /usr/lib/postgresql || apt-cache depends postgresql | sed -n 's/.*Depends: postgresql-//p'; } 2> /dev/null | sort -V | tail -1 || true)
  need '/usr/lib/postgresql/*/bin/pg_repack' "postgresql-${version:-15}-repack"
}

for what in "$@"; do
  case $what in
    build)
      need cc gcc
      need make make
      # libpg_query's bindings are made by bindgen, which loads libclang.
      if [ -z "${LIBCLANG_PATH:-}" ] && ! ldconfig -p 2> /dev/null | grep -Eq 'libclang(-[0-9.]+)?[.]so'; then missing+=(libclang-dev); fi
      need '/usr/lib/postgresql/*/bin/initdb' postgresql
      need psql postgresql-client
      ;;
    test)
      need pg_dump postgresql-client
      need ssh-keygen openssh-client
      need openssl openssl
      need pgrep procps
      need prlimit util-linux
      if ! python3 -c "import ensurepip" 2> /dev/null; then missing+=(python3 python3-venv); fi
      need node nodejs
      need npm npm
      need chromium chromium
      need_repack
      ;;
    page)
      need node nodejs
      need npm npm
      ;;
    bench)
      need '/usr/lib/postgresql/*/bin/pgbench' postgresql
      need pgbouncer pgbouncer
      need pgcopydb pgcopydb
      need_repack
      if ! python3 -c "import ensurepip" 2> /dev/null; then missing+=(python3 python3-venv); fi
      ;;
    *) echo "scripts/install.sh: unknown: $what" >&2; exit 2 ;;
  esac
done

if [ ${#missing[@]} -gt 0 ]; then
  echo "missing: ${missing[*]}"
  if ! command -v apt-get > /dev/null; then
    echo "This is not Debian or its kin: install the equivalents of these packages yourself" >&2
    echo "(PostgreSQL 15 or later with its server programs, psql, libclang)." >&2
    exit 1
  fi
  sudo=""
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo > /dev/null || { echo "Run as root: apt-get install ${missing[*]}" >&2; exit 1; }
    sudo=sudo
  fi
  # No cluster of Debian's own: ours are in our folders, and nothing must listen on 5432.
  $sudo mkdir -p /etc/postgresql-common
  if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    echo "create_main_cluster = false" | $sudo tee /etc/postgresql-common/createcluster.conf > /dev/null
  fi
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq "${missing[@]}" > /dev/null
fi

command -v cargo > /dev/null || { echo "cargo is missing: install Rust from https://rustup.rs (1.89 or later)" >&2; exit 1; }

for what in "$@"; do
  if [ "$what" = bench ] && ! target/bench/python/bin/python -c 'import matplotlib, cryptography' 2> /dev/null; then
    python3 -m venv target/bench/python
    target/bench/python/bin/pip install --quiet --disable-pip-version-check -r bench/requirements.txt
  fi
  [ "$what" = test ] || continue
  # Drivers under test, in the build folder: psycopg (and schemathesis for the API) in a virtual environment, node-postgres by npm.
  venv=target/drivers/python
  if [ ! -x $venv/bin/python ] || ! $venv/bin/python -c 'import psycopg, schemathesis' 2> /dev/null; then
    python3 -m venv $venv
    $venv/bin/pip install --quiet --disable-pip-version-check -r tests/drivers/requirements.txt
  fi
  if ! cmp -s tests/drivers/package-lock.json target/drivers/node/package-lock.json || [ ! -d target/drivers/node/node_modules/pg ]; then
    mkdir -p target/drivers/node
    cp tests/drivers/package.json tests/drivers/package-lock.json target/drivers/node/
    npm ci --silent --no-audit --no-fund --prefix target/drivers/node
  fi
done
