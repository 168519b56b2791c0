"""Side by side in one run on one machine, interleaved: direct PostgreSQL, PgBouncer, Ringfence. Writes bench/RESULTS.md and
bench/charts.

Usage: run.py [SECONDS] [RUNS] [SECTION…]; the sections are SECTIONS below, all of them if none is named.

The read is a point read of a user by key, so that a face does the same work as the base table. Contenders: direct (Unix
socket), PgBouncer in session and in transaction mode, Ringfence for a workload with full access (counted) in session and in
transaction pooling, for a person with full access (each statement's intent durable before its first row), for a person at a
masked face and at a row-filtered one (the same, plus judging, masking, filtering). Medians of RUNS with their spread; ratios
are to PgBouncer in the named mode in the same run. Latencies are pgbench's own log of every transaction.
"""
import contextlib
import datetime
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time

import charts
from abuse import Abuse
from comparison import Comparison
from curves import Curves
from rig import BIN, ENV, ROOT, Contender, cpu_seconds, log_in, memory_kib, sh

SECTIONS = ("read", "many", "tls", "connect", "tpcb", "bulk", "fsync", "idle", "abuse", "curves")
SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 3
RUNS = int(sys.argv[2]) if len(sys.argv) > 2 else 3
CHOSEN = sys.argv[3:] or SECTIONS
IDLE_CLIENTS = 10_000


class Bench(Comparison):
    def __init__(self, stack):
        super().__init__(stack, SECONDS, RUNS)
        self.stack = stack
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def read(self):
        self.table("Point reads, to PgBouncer in session mode")
        names = ["direct", "PgBouncer, session", "Ringfence, full access", "Ringfence, full access, transaction", "Ringfence, durable intents",
                 "Ringfence, masked face", "Ringfence, row-filtered face"]
        for protocol in ("simple", "extended", "prepared"):
            for clients in (1, 8, 64):
                self.compare(protocol, names, ("-f", self.point, "-M", protocol), clients, "PgBouncer, session")
        for protocol in ("simple", "prepared"):
            points = [p for p in self.points if p[0] == protocol]
            self.lines += ["", charts.bars(f"tps-{protocol}", f"Point reads a second, {protocol} protocol (2 shared cores)", "reads/s", points, "tps"),
                           "", charts.bars(f"cpu-{protocol}", f"Proxy CPU for a point read, {protocol} protocol", "µs", [p for p in points if p[2] != "direct"], "cpu")]

    def many(self):
        self.table("Point reads of many clients over 20 connections, to PgBouncer in transaction mode")
        names = ["PgBouncer, transaction", "Ringfence, full access, transaction"]
        for protocol, these in (("simple", names), ("extended", names), ("prepared", names[1:])):
            for clients in (64, 500):
                self.compare(protocol, these, ("-f", self.point, "-M", protocol), clients, these[0])

    def tls(self):
        self.table("Point reads over TLS, to PgBouncer in session mode")
        secure = lambda name: Contender(name, self.contenders[name].dsn.replace("sslmode=disable", "sslmode=require"), self.contenders[name].pid)
        plain, self.contenders = self.contenders, {n: secure(n) for n in ("PgBouncer, session", "Ringfence, full access")}
        for protocol in ("simple", "prepared"):
            self.compare(f"{protocol}, TLS", list(self.contenders), ("-f", self.point, "-M", protocol), 8, "PgBouncer, session")
        self.contenders = plain

    def connect(self):
        self.table("A connection for each read (-C), to PgBouncer in the same mode")
        for mode in ("session", "transaction"):
            ours = "Ringfence, full access" + (", transaction" if mode == "transaction" else "")
            for clients in (1, 8):
                self.compare(f"-C, {mode}", [f"PgBouncer, {mode}", ours], ("-f", self.point, "-C"), clients, f"PgBouncer, {mode}")

    def tpcb(self):
        sh(f"{BIN}/pgbench", "-i", "-q", "-s", 10, f"host={self.socket_dir} user=postgres dbname=us", timeout=300)
        self.sql("grant all on pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history to clips_app")
        self.table("TPC-B, to PgBouncer in session mode")
        names = ["direct", "PgBouncer, session", "Ringfence, full access", "Ringfence, durable intents"]
        for protocol in ("simple", "prepared"):
            self.compare(f"TPC-B {protocol}", names, ("-b", "tpcb-like", "-M", protocol), 8, "PgBouncer, session")

    def bulk(self):
        self.lines += ["", "## Bulk, to direct", "", "| what | contender | MiB/s (spread) | ratio | proxy CPU s per GiB |", "| --- | --- | --- | --- | --- |"]
        rows = 1_000_000
        data = self.folder / "in.tsv"
        with open(data, "w") as out:
            for i in range(rows):
                out.write(f"{i}\t{'x' * 250}\n")
        work = {
            "a 1 GiB result": ("select repeat('x', 1000) from generate_series(1, 1073741) g", 1_073_741 * 1000),
            "COPY out, 1 GiB": ("copy (select repeat('x', 1000) from generate_series(1, 1073741) g) to stdout", 1_073_741 * 1000),
            "COPY in, 250 MiB": (f"\\copy bench.copied from '{data}'", data.stat().st_size),
        }
        names = ["direct", "PgBouncer, session", "Ringfence, full access"]
        for what, (command, size) in work.items():
            points = {}
            for _ in range(self.runs):
                for name in names:
                    contender = self.contenders[name]
                    self.sql("truncate bench.copied")
                    before, started = cpu_seconds(contender.pid) if contender.pid else 0, time.time()
                    fetch = ["-v", "FETCH_COUNT=0"]
                    subprocess.run(["psql", "-X", "-q", "-A", "-t", *fetch, "-o", "/dev/null", "-d", contender.dsn, "-c", command], check=True, env=ENV)
                    took = time.time() - started
                    used = (cpu_seconds(contender.pid) - before) / size * 2**30 if contender.pid else 0
                    points.setdefault(name, []).append((size / 2**20 / took, used))
                    print(f"{what:20} {name:30} {points[name][-1][0]:8.0f} MiB/s", flush=True)
            base = statistics.median(p[0] for p in points["direct"])
            for name in names:
                rates = [p[0] for p in points[name]]
                cpu = f"{statistics.median(p[1] for p in points[name]):.2f}" if self.contenders[name].pid else "-"
                self.lines.append(f"| {what} | {name} | {statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f}) | "
                                  f"{statistics.median(rates) / base:.2f} | {cpu} |")

    def fsync(self):
        """What one durable append costs here without us: the floor of a durable intent."""
        path = self.demo / "fsync-probe"
        file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        took = []
        for _ in range(2000):
            started = time.perf_counter()
            os.write(file, b"x" * 700)
            os.fdatasync(file)
            took.append((time.perf_counter() - started) * 1e6)
        os.close(file)
        path.unlink()
        one = {n: self.contenders[n].pgbench(self.logs, ("-f", self.point, "-M", "prepared"), 1, self.seconds)["p50"] * 1000
               for n in ("Ringfence, full access", "Ringfence, durable intents")}
        self.lines += ["", "## One client's durable intent", "",
                       f"An append of 700 bytes and its fdatasync, by itself: {statistics.median(took):.0f} µs (median of 2,000). A prepared point read by one client, "
                       f"median: {one['Ringfence, full access']:.0f} µs counted, {one['Ringfence, durable intents']:.0f} µs with a durable intent."]

    def idle(self):
        self.lines += ["", "## Memory of idle connections", "", "| contender | connections | KiB each |", "| --- | --- | --- |"]
        for name in ("PgBouncer, transaction", "Ringfence, full access, transaction"):
            contender = self.contenders[name]
            contender.pgbench(self.logs, ("-f", self.point), 8, 1)
            before = memory_kib(contender.pid)
            port = int(re.search(r"port=(\d+)", contender.dsn).group(1))
            user = re.search(r"user=(\S+)", contender.dsn).group(1)
            held = []
            with contextlib.suppress(OSError):
                for _ in range(IDLE_CLIENTS):
                    held.append(log_in(port, user))
            each = (memory_kib(contender.pid) - before) / len(held)
            print(f"{name}: {len(held)} connections, {each:.1f} KiB each", flush=True)
            self.lines.append(f"| {name} | {len(held):,} | {each:.1f} |")
            for connection in held:
                connection.close()
            time.sleep(2)

    def abuse(self):
        self.lines += Abuse(self, self.stack).run()

    def curves(self):
        self.lines += Curves(self, self.stack, SECONDS).run()


def main():
    with contextlib.ExitStack() as stack:
        bench = Bench(stack)
        for section in CHOSEN:
            getattr(bench, section)()
        cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "unknown")
        head = ["# Results", "",
                f"`bench/run.py {' '.join([str(SECONDS), str(RUNS), *sys.argv[3:]])}` on {datetime.date.today()}: {os.cpu_count()} cores of {cpu}, Linux "
                f"{platform.release()}; {sh(f'{BIN}/postgres', '--version').strip()}; {sh('pgbouncer', '--version').splitlines()[0]}. Medians of {RUNS} interleaved runs "
                f"of {SECONDS} s (least to most); client, proxy and PostgreSQL share the cores. CPU is the proxy's own, per transaction, from /proc. "
                "Ratios are within one run and say more than absolute figures."]
        text = "\n".join(head + bench.lines) + "\n"
        (ROOT / "bench/RESULTS.md").write_text(text)
        print(text)


main()
