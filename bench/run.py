"""Side by side in one run on one machine, interleaved: direct PostgreSQL, PgBouncer, Ringfence.

One workload: a point read of a user by key (`pgbench -f`), so that a masked face does the same work as the base table.
Contenders: direct (Unix socket), PgBouncer in session and in transaction mode, Ringfence for a workload with full access
(counted), for a person with full access (each statement's intent durable before its first row), for a person at a masked
face (the same, plus judging and masking). Prints medians of RUNS with their spread and the ratios to PgBouncer in session
mode, and writes bench/RESULTS.md. Usage: python3 bench/run.py [SECONDS] [RUNS]
"""
import datetime
import glob
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 4
RUNS = int(sys.argv[2]) if len(sys.argv) > 2 else 5
CLIENTS = (1, 8)
PROTOCOLS = ("simple", "extended", "prepared")
ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda p: int(p.split("/")[-2]))[-1]
TICKS = os.sysconf("SC_CLK_TCK")


def sh(*arguments, **more):
    return subprocess.run(arguments, check=True, capture_output=True, text=True, **more).stdout


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Contender:
    def __init__(self, name, dsn, pid=None, protocols=PROTOCOLS):
        self.name, self.dsn, self.pid, self.protocols = name, dsn, pid, protocols

    def run(self, script, protocol, clients):
        before = cpu_seconds(self.pid) if self.pid else 0
        out = sh(f"{BIN}/pgbench", "-n", "-f", script, "-M", protocol, "-c", str(clients), "-j", str(min(clients, 2)),
                 "-T", str(SECONDS), self.dsn, timeout=SECONDS + 30, env={**os.environ, "PGPASSWORD": "demo"})
        after = cpu_seconds(self.pid) if self.pid else 0
        tps = float(re.search(r"tps = ([\d.]+)", out).group(1))
        done = int(re.search(r"transactions actually processed: (\d+)", out).group(1))
        latency = float(re.search(r"latency average = ([\d.]+)", out).group(1))
        return tps, (after - before) / done * 1e6, latency


def start_pgbouncer(folder, socket_dir, mode, port):
    config = folder / f"{mode}.ini"
    (folder / "users.txt").write_text('"bench" "demo"\n')
    config.write_text(f"""[databases]
us = host={socket_dir} dbname=us
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users.txt
pool_mode = {mode}
default_pool_size = 64
max_client_conn = 200
logfile = {folder}/{mode}.log
pidfile = {folder}/{mode}.pid
""")
    as_user = ["-u", "postgres"] if os.getuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres")
    process = subprocess.Popen(["pgbouncer", "-q", *as_user, str(config)])
    time.sleep(1)
    return process


def free_port():
    import socket
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="rf-bench-"))
    os.chmod(folder, 0o755)
    demo = subprocess.Popen([ROOT / "target/release/ringfence", "demo", "--dir", folder / "demo", "--port", "0",
                             "--until-stdin-ends"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                            env={**os.environ, "RUST_LOG": "error"})
    bouncers = []
    try:
        while "ringfence demo is ready" not in demo.stdout.readline():
            pass
        port = re.search(r"127\.0\.0\.1:(\d+)", (folder / "demo/ringfence.toml").read_text()).group(1)
        socket_dir = (folder / "demo/us-trusted").resolve()
        superuser = f"host={socket_dir} user=postgres dbname=us"
        sh("psql", "-X", "-q", "-d", superuser, "-c",
           "create role bench login password 'demo' in role clips_app; grant ringfence_others to bench",
           "-c", "alter system set log_statement = 'none'", "-c", "select pg_reload_conf()")
        top = sh("psql", "-X", "-At", "-d", superuser, "-c", "select max(id) from users").strip()
        script = folder / "point.sql"
        script.write_text(f"\\set id random(1, {top})\nselect id, country, email, phone, full_name from users where id = :id;\n")
        ports = {mode: free_port() for mode in ("session", "transaction")}
        for mode, bouncer_port in ports.items():
            own = folder / mode
            own.mkdir()
            bouncers.append(start_pgbouncer(own, socket_dir, mode, bouncer_port))
        tcp = "host=127.0.0.1 sslmode=disable dbname=us"
        contenders = [
            Contender("direct", f"host={socket_dir} user=bench dbname=us"),
            Contender("PgBouncer, session", f"{tcp} port={ports['session']} user=bench", bouncers[0].pid),
            Contender("PgBouncer, transaction", f"{tcp} port={ports['transaction']} user=bench", bouncers[1].pid,
                      ("simple", "extended")),
            Contender("Ringfence, full access, counted", f"{tcp} port={port} user=feed-service", demo.pid),
            Contender("Ringfence, full access, durable intents", f"{tcp} port={port} user=us-engineer", demo.pid),
            Contender("Ringfence, masked face, durable intents", f"{tcp} port={port} user=singapore-analyst", demo.pid),
        ]
        results = {}
        for protocol in PROTOCOLS:
            for clients in CLIENTS:
                for run in range(RUNS):
                    for contender in contenders:
                        if protocol in contender.protocols:
                            point = contender.run(script, protocol, clients)
                            results.setdefault((protocol, clients, contender.name), []).append(point)
                            print(f"{protocol:9} {clients:3} {contender.name:42} run {run + 1}: {point[0]:9.0f} tps", flush=True)
        report(contenders, results)
    finally:
        for bouncer in bouncers:
            bouncer.terminate()
        demo.stdin.close()
        demo.wait()
        shutil.rmtree(folder, ignore_errors=True)


def report(contenders, results):
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "unknown")
    version = sh(f"{BIN}/postgres", "--version").strip()
    bouncer = sh("pgbouncer", "--version").splitlines()[0]
    lines = [
        "# Results", "",
        f"`python3 bench/run.py {SECONDS} {RUNS}` on {datetime.date.today()}: {os.cpu_count()} cores of {cpu}, Linux {platform.release()}; "
        f"{version}; {bouncer}. Medians of {RUNS} interleaved runs of {SECONDS} s (least to most); the client, the proxy and "
        "PostgreSQL share the cores. CPU is the proxy's own, per statement. Ratios are to PgBouncer in session mode in the same run; "
        "they say more than the absolute figures.", "",
        "| protocol | clients | contender | tps (spread) | tps ratio | latency ms | proxy CPU µs | CPU ratio |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for protocol in PROTOCOLS:
        for clients in CLIENTS:
            base = results[(protocol, clients, "PgBouncer, session")]
            base_tps = statistics.median(p[0] for p in base)
            base_cpu = statistics.median(p[1] for p in base)
            for contender in contenders:
                points = results.get((protocol, clients, contender.name))
                if not points:
                    continue
                tps = [p[0] for p in points]
                used = statistics.median(p[1] for p in points)
                median = statistics.median(tps)
                cpu_text = f"{used:.0f} | {used / base_cpu:.2f}" if contender.pid else "- | -"
                lines.append(
                    f"| {protocol} | {clients} | {contender.name} | {median:,.0f} ({min(tps):,.0f} to {max(tps):,.0f}) | "
                    f"{median / base_tps:.2f} | {statistics.median(p[2] for p in points):.3f} | {cpu_text} |")
    text = "\n".join(lines) + "\n"
    (ROOT / "bench/RESULTS.md").write_text(text)
    print(text)


main()
