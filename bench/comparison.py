"""Direct PostgreSQL, PgBouncer and Ringfence, side by side, interleaved."""
import os
import shutil
import statistics
import subprocess
import time

from rig import ENV, Contender, Rig, free_port, sh


class Comparison(Rig):
    def __init__(self, stack, seconds, runs):
        super().__init__(stack)
        self.seconds, self.runs, self.lines = seconds, runs, []
        self.points = []  # what the charts are made of: (title, clients, contender, medians)
        self.sql("create role bench login password 'demo' in role clips_app; grant ringfence_others to bench; alter role bench set role = 'clips_app'",
                 "create schema bench authorization clips_app; alter role clips_app set search_path = public",
                 "set role clips_app", "create table bench.copied (id bigint, name text)")
        ports = {mode: free_port() for mode in ("session", "transaction")}
        bouncers = {mode: self.pgbouncer(stack, mode, port) for mode, port in ports.items()}
        session = self.gateway(stack, "session", "")
        pooled = self.gateway(stack, "transaction", 'pool_mode = "transaction"\npool_size = 20\n')
        # The row-filtered face: a grant over the demo's own gateway; every gateway honours it.
        self.grant()
        tcp = "host=127.0.0.1 sslmode=disable dbname=us"
        ring = lambda gateway, who: (f"{tcp} port={gateway[1]} user={who}", gateway[0])
        self.contenders = {c.name: c for c in [
            Contender("direct", f"host={self.socket_dir} user=bench dbname=us"),
            Contender("PgBouncer, session", f"{tcp} port={ports['session']} user=bench", bouncers["session"]),
            Contender("PgBouncer, transaction", f"{tcp} port={ports['transaction']} user=bench", bouncers["transaction"]),
            Contender("Ringfence, full access", *ring(session, "feed-service")),
            Contender("Ringfence, full access, transaction", *ring(pooled, "feed-service")),
            Contender("Ringfence, durable intents", *ring(session, "us-engineer")),
            Contender("Ringfence, masked face", *ring(self.plain_gateway(stack), "singapore-analyst")),
            Contender("Ringfence, row-filtered face", *ring(session, "singapore-analyst")),
        ]}

    def plain_gateway(self, stack):
        """A gateway whose rules know of no grant: another approvers' threshold makes the signatures too few."""
        registry = (self.demo / "registry.toml").read_text().replace("approvals = 2", "approvals = 3")
        (self.demo / "registry-plain.toml").write_text(registry)
        return self.gateway(stack, "plain", "", lambda text: text.replace('"registry.toml"', '"registry-plain.toml"'))

    def pgbouncer(self, stack, mode, port):
        own = self.folder / f"pgbouncer-{mode}"
        own.mkdir()
        (own / "users.txt").write_text('"bench" "demo"\n')
        keys = self.demo / "keys"
        for name in ("tls.key", "tls.crt"):
            shutil.copy(keys / name, own / name)
        (own / "pgbouncer.ini").write_text(f"""[databases]
us = host={self.socket_dir} dbname=us
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {own}/users.txt
pool_mode = {mode}
default_pool_size = {20 if mode == "transaction" else 80}
max_client_conn = 20000
client_tls_sslmode = allow
client_tls_key_file = {own}/tls.key
client_tls_cert_file = {own}/tls.crt
logfile = {own}/log
pidfile = {own}/pid
""")
        as_user = ["-u", "postgres"] if os.getuid() == 0 else []
        if as_user:
            for path in (own, *own.iterdir()):
                shutil.chown(path, "postgres")
        process = subprocess.Popen(["pgbouncer", "-q", *as_user, own / "pgbouncer.ini"])
        stack.callback(process.wait)
        stack.callback(process.terminate)
        time.sleep(1)
        return process.pid

    def compare(self, title, names, arguments, clients, base, with_cpu=True):
        """One table row a contender; RUNS interleaved."""
        points = {}
        for run in range(self.runs):
            for name in names:
                try:
                    point = self.contenders[name].pgbench(self.logs, arguments, clients, self.seconds)
                except RuntimeError as e:
                    print(f"  {name}: {e}", flush=True)
                    continue
                points.setdefault(name, []).append(point)
                print(f"{title:34} {clients:4} {name:38} run {run + 1}: {points[name][-1]['tps']:9.0f} tps", flush=True)
        median = lambda name, key: statistics.median(p[key] for p in points[name])
        for name in names:
            if name not in points:
                self.lines.append(f"| {title} | {clients} | {name} | failed | | | | | |")
                continue
            tps = [p["tps"] for p in points[name]]
            self.points.append((title, clients, name, {key: median(name, key) for key in ("tps", "cpu", "p99")}))
            ratio = lambda key: f"{median(name, key) / median(base, key):.2f}" if median(base, key) else "-"
            cpu = f"{median(name, 'cpu'):.1f} | {ratio('cpu')}" if self.contenders[name].pid and with_cpu else "- | -"
            self.lines.append(
                f"| {title} | {clients} | {name} | {median(name, 'tps'):,.0f} ({min(tps):,.0f} to {max(tps):,.0f}) | {ratio('tps')} | "
                f"{median(name, 'p50'):.2f} / {median(name, 'p95'):.2f} / {median(name, 'p99'):.2f} | {ratio('p99')} | {cpu} |")

    def table(self, title):
        self.lines += ["", f"## {title}", "", "| what | clients | contender | tps (spread) | ratio | ms p50 / p95 / p99 | p99 ratio | proxy CPU µs | ratio |",
                       "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
