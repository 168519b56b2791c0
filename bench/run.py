"""Side by side in one run on one machine, interleaved: direct PostgreSQL, PgBouncer, Ringfence. Writes bench/RESULTS.md.

Usage: python3 bench/run.py [SECONDS] [RUNS] [SECTION…]; the sections are SECTIONS below, all of them if none is named.

The read is a point read of a user by key, so that a face does the same work as the base table. Contenders: direct (Unix
socket), PgBouncer in session and in transaction mode, Ringfence for a workload with full access (counted) in session and in
transaction pooling, for a person with full access (each statement's intent durable before its first row), for a person at a
masked face and at a row-filtered one (the same, plus judging, masking, filtering). Medians of RUNS with their spread; ratios
are to PgBouncer in the named mode in the same run. Latencies are pgbench's own log of every transaction.
"""
import base64
import contextlib
import datetime
import glob
import hashlib
import hmac
import os
import pathlib
import platform
import re
import resource
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

SECTIONS = ("read", "many", "tls", "connect", "tpcb", "bulk", "fsync", "idle")
SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 3
RUNS = int(sys.argv[2]) if len(sys.argv) > 2 else 3
CHOSEN = sys.argv[3:] or SECTIONS
IDLE_CLIENTS = 10_000
ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "target/release/ringfence"
BIN = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda p: int(p.split("/")[-2]))[-1]
TICKS = os.sysconf("SC_CLK_TCK")
ENV = {**os.environ, "PGPASSWORD": "demo"}


def sh(*arguments, **more):
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, env=ENV, **more)
    if done.returncode:
        raise RuntimeError(f"{arguments[0]}: {done.stderr.strip()[-500:]}")
    return done.stdout


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_kib(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1))


class Contender:
    def __init__(self, name, dsn, pid=None):
        self.name, self.dsn, self.pid = name, dsn, pid

    def pgbench(self, folder, arguments, clients, seconds=SECONDS):
        seconds += clients // 100  # so many take a while to connect, which counts as time
        for old in folder.glob("log.*"):
            old.unlink()
        before = cpu_seconds(self.pid) if self.pid else 0
        out = sh(f"{BIN}/pgbench", "-n", *arguments, "-c", clients, "-j", min(clients, 2), "-T", seconds, "-l",
                 "--log-prefix", folder / "log", self.dsn, timeout=seconds + 90)
        used = cpu_seconds(self.pid) - before if self.pid else 0
        latencies = sorted(int(line.split(" ", 3)[2]) for log in folder.glob("log.*") for line in open(log))
        if not latencies:
            raise RuntimeError(f"no transaction was done: {out}")
        tps = float(re.search(r"tps = ([\d.]+) \(without", out + "tps = 0 (without").group(1)) or len(latencies) / seconds
        at = lambda share: latencies[min(int(len(latencies) * share), len(latencies) - 1)] / 1000
        return {"tps": tps, "cpu": used / len(latencies) * 1e6, "p50": at(0.5), "p95": at(0.95), "p99": at(0.99)}


class Bench:
    def __init__(self, stack):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="rf-bench-"))
        stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        os.chmod(self.folder, 0o755)
        self.lines = []
        self.logs = self.folder / "logs"
        self.logs.mkdir()
        self.demo = self.folder / "demo"
        demo = subprocess.Popen([PROGRAM, "demo", "--dir", self.demo, "--port", "0", "--until-stdin-ends"], text=True,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**ENV, "RUST_LOG": "error"})
        stack.callback(demo.wait)
        stack.callback(demo.stdin.close)
        while "ringfence demo is ready" not in demo.stdout.readline():
            pass
        self.socket_dir = (self.demo / "us-trusted").resolve()
        superuser = f"host={self.socket_dir} user=postgres dbname=us"
        sh("psql", "-X", "-q", "-d", superuser, "-c", "alter system set max_connections = 600")
        as_owner = ["runuser", "-u", self.socket_dir.owner(), "--"] if os.getuid() == 0 else []
        sh(*as_owner, f"{BIN}/pg_ctl", "restart", "-D", self.socket_dir, "-m", "fast", "-w", "-l", self.socket_dir / "bench.log", cwd="/")
        sh("psql", "-X", "-q", "-d", superuser, "-c",
           "create role bench login password 'demo' in role clips_app; grant ringfence_others to bench; alter role bench set role = 'clips_app'",
           "-c", "alter system set log_statement = 'none'", "-c", "select pg_reload_conf()",
           "-c", "create schema bench authorization clips_app; alter role clips_app set search_path = public",
           "-c", "set role clips_app", "-c", "create table bench.copied (id bigint, name text)")
        self.top = sh("psql", "-X", "-At", "-d", superuser, "-c", "select max(id) from users").strip()
        self.superuser = superuser
        self.point = self.folder / "point.sql"
        self.point.write_text(f"\\set id random(1, {self.top})\nselect id, country, email, phone, full_name from users where id = :id;\n")
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

    def gateway(self, stack, name, more, change=lambda text: text):
        port = free_port()
        text = (self.demo / "ringfence.toml").read_text()
        text = re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{port}", text, count=1)
        text = text.replace('dir = "ledger"', f'dir = "ledger-{name}"')
        text = text.replace("[gateway]\n", "[gateway]\nmax_clients = 20000\nmax_connections_per_principal = 20000\n")
        text = text.replace("full_access_role", f"face_connections = 80\n{more}full_access_role")
        config = self.demo / f"{name}.toml"
        config.write_text(change(text))
        served = subprocess.Popen([PROGRAM, "serve", "--config", config], stdout=subprocess.DEVNULL, stderr=open(self.folder / f"{name}.err", "w"))
        stack.callback(served.wait)
        stack.callback(served.kill)
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return served.pid, port
            time.sleep(0.1)
        raise RuntimeError((self.folder / f"{name}.err").read_text())

    def plain_gateway(self, stack):
        """A gateway whose rules know of no grant: another approvers' threshold makes the signatures too few."""
        registry = (self.demo / "registry.toml").read_text().replace("approvals = 2", "approvals = 3")
        (self.demo / "registry-plain.toml").write_text(registry)
        return self.gateway(stack, "plain", "", lambda text: text.replace('"registry.toml"', '"registry-plain.toml"'))

    def grant(self):
        config = ("--config", self.demo / "ringfence.toml")
        asked = sh(PROGRAM, "request", "--json", "--as", "singapore-analyst", "--store", "us", "--columns", "users.email,users.phone,users.full_name",
                   "--where", "id > 0", "--purpose", "bench", "--for", "4h", *config)
        name = re.search(r'"id": "([^"]+)"', asked).group(1)
        for approver in ("us-approver-1", "us-approver-2"):
            sh(PROGRAM, "approve", name, "--as", approver, "--key", self.demo / "keys" / approver, *config)

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
        for run in range(RUNS):
            for name in names:
                try:
                    point = self.contenders[name].pgbench(self.logs, arguments, clients)
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
            ratio = lambda key: f"{median(name, key) / median(base, key):.2f}" if median(base, key) else "-"
            cpu = f"{median(name, 'cpu'):.1f} | {ratio('cpu')}" if self.contenders[name].pid and with_cpu else "- | -"
            self.lines.append(
                f"| {title} | {clients} | {name} | {median(name, 'tps'):,.0f} ({min(tps):,.0f} to {max(tps):,.0f}) | {ratio('tps')} | "
                f"{median(name, 'p50'):.2f} / {median(name, 'p95'):.2f} / {median(name, 'p99'):.2f} | {ratio('p99')} | {cpu} |")

    def table(self, title):
        self.lines += ["", f"## {title}", "", "| what | clients | contender | tps (spread) | ratio | ms p50 / p95 / p99 | p99 ratio | proxy CPU µs | ratio |",
                       "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]

    def read(self):
        self.table("Point reads, to PgBouncer in session mode")
        names = ["direct", "PgBouncer, session", "Ringfence, full access", "Ringfence, full access, transaction", "Ringfence, durable intents",
                 "Ringfence, masked face", "Ringfence, row-filtered face"]
        for protocol in ("simple", "extended", "prepared"):
            for clients in (1, 8, 64):
                self.compare(protocol, names, ("-f", self.point, "-M", protocol), clients, "PgBouncer, session")

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
        sh("psql", "-X", "-q", "-d", self.superuser, "-c", "grant all on pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history to clips_app")
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
            for _ in range(RUNS):
                for name in names:
                    contender = self.contenders[name]
                    sh("psql", "-X", "-q", "-d", self.superuser, "-c", "truncate bench.copied")
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
        one = {n: self.contenders[n].pgbench(self.logs, ("-f", self.point, "-M", "prepared"), 1)["p50"] * 1000
               for n in ("Ringfence, full access", "Ringfence, durable intents")}
        self.lines += ["", "## One client's durable intent", "",
                       f"An append of 700 bytes and its fdatasync, by itself: {statistics.median(took):.0f} µs (median of 2,000). A prepared point read by one client, "
                       f"median: {one['Ringfence, full access']:.0f} µs counted, {one['Ringfence, durable intents']:.0f} µs with a durable intent."]

    def idle(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
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


SALTED = {}


def log_in(port, user):
    """SCRAM-SHA-256 with the salted password remembered: ten thousand logins must not take minutes of hashing."""
    s = socket.create_connection(("127.0.0.1", port))
    body = struct.pack("!i", 3 << 16) + f"user\0{user}\0database\0us\0\0".encode()
    s.sendall(struct.pack("!i", len(body) + 4) + body)
    stream = s.makefile("rb", buffering=0)

    def read(count):
        data = b""
        while len(data) < count:
            more = stream.read(count - len(data))
            if not more:
                raise OSError("closed")
            data += more
        return data

    def message():
        tag, length = struct.unpack("!ci", read(5))
        return tag, read(length - 4)

    def send(body):
        s.sendall(b"p" + struct.pack("!i", len(body) + 4) + body)

    message()
    nonce = base64.b64encode(os.urandom(18)).decode()
    first = f"n=,r={nonce}"
    initial = f"n,,{first}".encode()
    send(b"SCRAM-SHA-256\0" + struct.pack("!i", len(initial)) + initial)
    challenge = message()[1][4:].decode()
    fields = dict(part.split("=", 1) for part in challenge.split(","))
    key = (fields["s"], fields["i"])
    if key not in SALTED:
        SALTED[key] = hashlib.pbkdf2_hmac("sha256", b"demo", base64.b64decode(fields["s"]), int(fields["i"]))
    client_key = hmac.digest(SALTED[key], b"Client Key", "sha256")
    last = f"c=biws,r={fields['r']}"
    signature = hmac.digest(hashlib.sha256(client_key).digest(), f"{first},{challenge},{last}".encode(), "sha256")
    proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature))).decode()
    send(f"{last},p={proof}".encode())
    while True:
        tag, body = message()
        if tag == b"E":
            raise OSError(body.decode(errors="replace"))
        if tag == b"Z":
            return s


def main():
    with contextlib.ExitStack() as stack:
        bench = Bench(stack)
        for section in CHOSEN:
            getattr(bench, section)()
        cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "unknown")
        head = ["# Results", "",
                f"`python3 bench/run.py {' '.join([str(SECONDS), str(RUNS), *sys.argv[3:]])}` on {datetime.date.today()}: {os.cpu_count()} cores of {cpu}, Linux "
                f"{platform.release()}; {sh(f'{BIN}/postgres', '--version').strip()}; {sh('pgbouncer', '--version').splitlines()[0]}. Medians of {RUNS} interleaved runs "
                f"of {SECONDS} s (least to most); client, proxy and PostgreSQL share the cores. CPU is the proxy's own, per transaction, from /proc. "
                "Ratios are within one run and say more than absolute figures."]
        text = "\n".join(head + bench.lines) + "\n"
        (ROOT / "bench/RESULTS.md").write_text(text)
        print(text)


main()
