"""What a move and an erasure cost: its speed beside `pg_dump -Fd -j2 | pg_restore -j2` of the same rows, and what live clients notice of it. Writes
bench/MIGRATE.md.

Usage: python3 bench/migrate.py [USERS] [TRANSACTIONS-PER-SECOND]
"""
import contextlib
import datetime
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time

from rig import BIN, ENV, PROGRAM, ROOT, sh

USERS = int(sys.argv[1]) if len(sys.argv) > 1 else 850_000
RATE = int(sys.argv[2]) if len(sys.argv) > 2 else 300
CLIENTS = 8
# What a program of the platform does all day: a message, and a change of a person's own row.
SCRIPT = """\\set id random(1000000000, 9000000000000000)
\\set user random(1, {top})
begin;
insert into messages (id, sender_id, recipient_id, body, sent_at) select :id, id, 1, 'hello', now() from users where id = :user and country = 'US';
update users set phone = 'x' where id = :user and country = 'US';
commit;
"""


def percentiles(files, since=0.0, until=9e18):
    """Latencies in ms of transactions that began in this span, from pgbench's logs."""
    found = []
    for file in files:
        for line in open(file):
            fields = line.split()
            if len(fields) < 6:
                continue  # the last line, when pgbench was stopped
            ended = int(fields[4]) + int(fields[5]) / 1e6
            took = int(fields[2]) / 1e6
            if since <= ended - took and ended - took < until:
                found.append(took * 1000)
    found.sort()
    if not found:
        return None
    at = lambda share: found[min(int(len(found) * share), len(found) - 1)]
    return {"n": len(found), "p50": at(0.5), "p99": at(0.99), "max": found[-1]}


OTHERS = """\\set id random(1000000000, 9000000000000000)
\\set user random(1, {top})
begin;
insert into messages (id, sender_id, recipient_id, body, sent_at) select :id, id, 1, 'hello', now() from users where id = :user and country <> 'US';
update users set phone = 'x' where id = :user and country <> 'US';
commit;
"""


def erase(stack, folder, demo, env, at, sql):
    """Erases what has moved, while others' rows are written."""
    run = lambda *arguments: subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, env=env)
    scanned = run("copies", "scan", "--as", "us-engineer", "--json")
    assert json.loads(scanned.stdout)["copies"], scanned.stderr[-500:]
    asked = json.loads(run("erase", "request", "--as", "us-engineer", "--purpose", "measured", "--json").stdout)
    for who in ("us-approver-1", "us-approver-2"):
        done = run("erase", "approve", asked["id"], "--as", who, "--key", str(demo / "keys" / who))
        assert done.returncode == 0, done.stderr[-500:]
    script = folder / "others.sql"
    script.write_text(OTHERS.format(top=USERS))
    load = subprocess.Popen([f"{BIN}/pgbench", "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "2", "-T", "100000", "-R", str(RATE), "-f", script, "-l",
                             "--log-prefix", folder / "others", at("sg-legacy", "legacy")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV)
    stack.callback(load.kill)
    time.sleep(15)
    began = time.time()
    done = run("erase", "run", asked["id"], "--as", "us-engineer", "--json")
    ended = time.time()
    assert done.returncode == 0, done.stderr[-800:]
    told = json.loads(done.stdout)["certificate"]
    assert told["rewritten_in_use"] == len(told["rows"]), told
    time.sleep(10)
    locking = time.time()
    for table, _ in told["rows"]:
        sql("sg-legacy", "legacy", f"vacuum full {table}")
    locked = time.time()
    time.sleep(5)
    assert load.poll() is None, f"a client met an error: {load.stderr.read()[-500:]}"
    load.terminate()
    errors = re.findall(r"(?:ERROR|FATAL|aborted).*", load.communicate()[1])
    assert not errors, errors
    files = list(folder.glob("others.*.*"))
    return {"rows": sum(n for _, n in told["rows"]), "people": told["verified"]["looked_for"], "bytes": told["verified"]["looked_at"]["bytes"], "seconds": ended - began,
            "before": percentiles(files, until=began - 1), "during": percentiles(files, began, ended), "locking": locked - locking, "locked": percentiles(files, locking, locked)}


def main():
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="rf-bench-", dir="/var/tmp"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        os.chmod(folder, 0o755)
        demo = folder / "demo"
        running = subprocess.Popen([PROGRAM, "demo", "--dir", demo, "--port", "0", "--users", str(USERS), "--until-stdin-ends"], text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**ENV, "RUST_LOG": "error"})
        stack.callback(running.wait)
        stack.callback(running.stdin.close)
        while "ringfence demo is ready" not in running.stdout.readline():
            pass
        port = int(re.search(r"127\.0\.0\.1:(\d+)", (demo / "ringfence.toml").read_text()).group(1))
        env = {**ENV, "RINGFENCE_CONFIG": str(demo / "ringfence.toml")}
        at = lambda cluster, database: f"host={(demo / cluster).resolve()} user=postgres dbname={database}"
        sql = lambda cluster, database, text: sh("psql", at(cluster, database), "-X", "-A", "-t", "-q", "-c", text).strip()
        for cluster in ("us-trusted", "sg-legacy"):
            for setting in ("log_statement = 'none'", "max_wal_size = '8GB'"):
                sql(cluster, "postgres", f"alter system set {setting}")
            sql(cluster, "postgres", "select pg_reload_conf()")
            sql(cluster, "postgres", "checkpoint")

        def migrate(what, *more):
            began = time.time()
            done = subprocess.run([PROGRAM, "migrate", what, *more, "--json"], capture_output=True, text=True, env=env)
            if done.returncode:
                raise RuntimeError(f"migrate {what}: {done.stderr[-500:]}")
            return json.loads(done.stdout), began, time.time()

        # The other way to move these rows: nobody may write meanwhile. The store `us` holds exactly them.
        def dump_and_restore():
            dump = folder / "dump"
            sql("us-trusted", "postgres", "create database restored")
            began = time.monotonic()
            sh(f"{BIN}/pg_dump", "-Fd", "-j2", "-n", "public", "-f", dump, at("us-trusted", "us"))
            dumped = time.monotonic()
            subprocess.run([f"{BIN}/pg_restore", "-j2", "--no-owner", "--no-privileges", "-d", at("us-trusted", "restored"), dump], capture_output=True, env=ENV)
            ended = time.monotonic()
            rows = int(sql("us-trusted", "restored", "select (select count(*) from messages) + (select count(*) from users)"))
            assert rows > 0
            sql("us-trusted", "postgres", "drop database restored")
            shutil.rmtree(dump)
            return dumped - began, ended - dumped

        counts = " + ".join(f"(select count(*) from {t})" for t in ("users", "profiles", "devices", "videos", "follows", "messages", "watch_history", "payments"))
        rows = int(sql("us-trusted", "us", f"select {counts}"))
        every = int(sql("sg-legacy", "legacy", f"select {counts}"))
        print(f"{rows:,} of {every:,} rows move", flush=True)
        # pgcopydb wants both sides on the same terms: a target that is made anew.
        def pgcopydb():
            sql("us-trusted", "postgres", "create database restored")
            began = time.monotonic()
            sh("pgcopydb", "clone", "--source", at("us-trusted", "us"), "--target", at("us-trusted", "restored"), "--dir", folder / "pgcopydb", "--table-jobs", 2, "--index-jobs", 2,
               "--no-owner", "--no-acl", "--skip-extensions")
            took = time.monotonic() - began
            moved = int(sql("us-trusted", "restored", f"select {counts}"))
            assert moved == rows, (moved, rows)
            sql("us-trusted", "postgres", "drop database restored")
            shutil.rmtree(folder / "pgcopydb")
            return took

        # Quiet first: nothing but the move.
        def move():
            _, began, ended = migrate("start", "--as", "us-engineer")
            migrate("abort", "--as", "us-engineer")
            sql("sg-legacy", "legacy", "vacuum full")
            return ended - began

        ways = {"move": move, "dump": lambda: sum(dump_and_restore())}
        if shutil.which("pgcopydb"):
            ways["pgcopydb"] = pgcopydb
        times = {name: [] for name in ways}
        for _ in range(3):
            for name, way in ways.items():
                for cluster in ("us-trusted", "sg-legacy"):
                    sql(cluster, "postgres", "checkpoint")
                times[name].append(way())
                print(f"{name} {times[name][-1]:.1f} s", flush=True)
        middle = {name: sorted(runs)[1] for name, runs in times.items()}
        alone, dump = middle["move"], middle["dump"]

        # And with live clients, all the time.
        script = folder / "script.sql"
        script.write_text(SCRIPT.format(top=USERS))
        load = subprocess.Popen([f"{BIN}/pgbench", "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "2", "-T", "100000", "-R", str(RATE), "-f", script, "-l",
                                 "--log-prefix", folder / "live", f"host=127.0.0.1 port={port} user=feed-service dbname=clips"],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV)
        stack.callback(load.kill)
        time.sleep(15)
        live, began, ended = migrate("start", "--as", "us-engineer")
        followed = (began, ended)
        time.sleep(10)
        report, cut_began, cut_ended = migrate("cutover", "--as", "us-engineer")
        time.sleep(10)
        assert load.poll() is None, f"a client met an error: {load.stderr.read()[-500:]}"
        load.terminate()
        said = load.communicate()
        files = list(folder.glob("live.*"))
        quiet = percentiles(files, until=began - 1)
        during = percentiles(files, began, ended)
        comparing = percentiles(files, cut_began, cut_ended)
        after = percentiles(files, cut_ended + 1)
        errors = re.findall(r"(?:ERROR|FATAL|aborted).*", said[1])
        assert not errors, errors
        erased = erase(stack, folder, demo, env, at, sql)
        machine = f"{platform.machine()}, {os.cpu_count()} shared cores, PostgreSQL {sql('us-trusted', 'us', 'show server_version').split()[0]}, {datetime.date.today()}"
        line = lambda what, p: f"| {what} | {p['n']:,} | {p['p50']:.1f} | {p['p99']:.1f} | {p['max']:.0f} |"
        parts = ", ".join(f"{name} {ms:.0f}" for name, ms in report["parts"])
        runs = ", ".join(f"{t:.1f}" for t in times["move"])
        clone = f"| `pgcopydb clone`, 2 jobs | {middle['pgcopydb']:.1f} | {dump / middle['pgcopydb']:.2f} |\n" if "pgcopydb" in middle else ""
        text = f"""# What a move costs

Made by `bench/migrate.py` ({machine}): {rows:,} of {every:,} rows of `clips` move from `sg-legacy` to an empty database of `us-trusted`, tables and indexes with them.
Seven of the eight tables do not say a country in their rows; who belongs is in the publication's row filters. `pg_dump -Fd -j2` and `pg_restore -j2`, and `pgcopydb clone` where there is one, take the same rows
from a store that holds nothing else; meanwhile nobody may write there. Three runs of each in turns, medians (the moves: {runs} s; PostgreSQL starts a subscription
up to 5 s late, where another one has begun just before: `wal_retrieve_retry_interval`).

| | seconds | ratio |
| --- | --- | --- |
| `ringfence migrate start`, nobody writing | {alone:.1f} | {dump / alone:.2f} |
| `pg_dump -Fd -j2`, then `pg_restore -j2` | {dump:.1f} | 1 |
{clone}| `ringfence migrate start` under the live load below | {followed[1] - followed[0]:.1f} | |

Live clients: {CLIENTS} sessions, prepared statements, {RATE} transactions a second asked for (an insert and an update each), through the gateway's route, all the time.
Latencies in ms as pgbench sees them, waiting for its own schedule included.

| | transactions | p50 | p99 | longest |
| --- | --- | --- | --- | --- |
{line("before", quiet)}
{line("while rows are copied and indexed", during)}
{line("while both sides are compared and changed over", comparing)}
{line("after", after)}

The change-over held clients for {report['held_ms']:.0f} ms ({parts} ms). No client met an error. Both sides were compared row by row before ({sum(t['rows'] for t in report['verified']['tables'].values()):,} rows,
{cut_ended - cut_began:.1f} s with the change-over), and {report['changed']:,} rows that changed meanwhile one by one.

## What an erasure costs

Then `ringfence erase run` removes the rows from `sg-legacy`, while {CLIENTS} other sessions write rows of everybody else there ({RATE} transactions a second asked for, straight at the store): deletes {erased['rows']:,} rows, writes the
tables anew with `pg_repack`, uses up old WAL, and looks through {erased['bytes'] / 1e9:.1f} GB for {erased['people']:,} people. {erased['seconds']:.0f} s. Beside it the same tables by `VACUUM FULL`, as `--lock-tables` does, afterwards and under the same load.

| | transactions | p50 | p99 | longest |
| --- | --- | --- | --- | --- |
{line("before", erased['before'])}
{line("during the erasure", erased['during'])}
{line("during VACUUM FULL of its tables (" + format(erased['locking'], '.0f') + " s)", erased['locked'])}

No client met an error.
"""
        (ROOT / "bench/MIGRATE.md").write_text(text)
        print(text)


main()
