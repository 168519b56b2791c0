"""What the comparisons stand on: a demo with real PostgreSQL, gateways beside it, PgBouncer, and logins that are cheap to make."""
import base64
import contextlib
import glob
import hashlib
import hmac
import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = pathlib.Path(os.environ.get("RINGFENCE", ROOT / "target/release/ringfence"))
BIN = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda p: int(p.split("/")[-2]))[-1]
TICKS = os.sysconf("SC_CLK_TCK")
ENV = {**os.environ, "PGPASSWORD": "demo"}


def sh(*arguments, **more):
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, env=ENV, **more)
    if done.returncode:
        raise RuntimeError(f"{pathlib.Path(arguments[0]).name}: {done.stderr.strip()[-500:]}")
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

    def pgbench(self, folder, arguments, clients, seconds):
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


class Rig:
    """A demo whose trusted store has room for many connections, and gateways beside the demo's own."""

    def __init__(self, stack):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="rf-bench-"))
        stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        os.chmod(self.folder, 0o755)
        self.logs = self.folder / "logs"
        self.logs.mkdir()
        self.demo = self.folder / "demo"
        demo = subprocess.Popen([PROGRAM, "demo", "--dir", self.demo, "--port", "0", "--until-stdin-ends"], text=True,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**ENV, "RUST_LOG": "error"})
        stack.callback(demo.wait)
        stack.callback(demo.stdin.close)
        while "ringfence demo is ready" not in demo.stdout.readline():
            pass
        self.config = self.demo / "ringfence.toml"
        self.socket_dir = (self.demo / "us-trusted").resolve()
        self.superuser = f"host={self.socket_dir} user=postgres dbname=us"
        self.sql("alter system set max_connections = 1300", "alter system set log_statement = 'none'")
        self.restart_store()
        self.top = int(self.sql("select max(id) from users"))
        self.point = self.folder / "point.sql"
        self.point.write_text(f"\\set id random(1, {self.top})\nselect id, country, email, phone, full_name from users where id = :id;\n")

    def sql(self, *statements):
        """As the host's superuser, past every gateway."""
        each = [word for statement in statements for word in ("-c", statement)]
        return sh("psql", "-X", "-q", "-At", "-d", self.superuser, *each).strip()

    def restart_store(self):
        as_owner = ["runuser", "-u", self.socket_dir.owner(), "--"] if os.getuid() == 0 else []
        sh(*as_owner, f"{BIN}/pg_ctl", "restart", "-D", self.socket_dir, "-m", "fast", "-w", "-l", self.socket_dir / "bench.log", cwd="/")

    def gateway(self, stack, name, more, change=lambda text: text):
        port = free_port()
        text = (self.demo / "ringfence.toml").read_text()
        text = re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{port}", text, count=1)
        text = text.replace('dir = "ledger"', f'dir = "ledger-{name}"').replace('witnesses = "witnesses.policy"\n', '')
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

    def request(self, condition, lasting="4h"):
        asked = sh(PROGRAM, "request", "--json", "--as", "singapore-analyst", "--store", "us", "--columns", "users.email,users.phone,users.full_name",
                   "--where", condition, "--purpose", "bench", "--for", lasting, "--config", self.config)
        return re.search(r'"id": "([^"]+)"', asked).group(1)

    def approve(self, request):
        for approver in ("us-approver-1", "us-approver-2"):
            sh(PROGRAM, "approve", request, "--as", approver, "--key", self.demo / "keys" / approver, "--config", self.config)

    def grant(self, condition="id > 0", lasting="4h"):
        request = self.request(condition, lasting)
        self.approve(request)
        return request

    def revoke(self, request):
        sh(PROGRAM, "revoke", request, "--as", "us-approver-1", "--reason", "bench", "--config", self.config)


SALTED = {}


def query(client, text):
    """Sends a simple query; the answer is the caller's to read."""
    body = text.encode() + b"\0"
    client.sendall(b"Q" + struct.pack("!i", len(body) + 4) + body)
    return len(body) + 5


def log_in(port, user, database="us"):
    """SCRAM-SHA-256 with the salted password remembered: ten thousand logins must not take minutes of hashing."""
    s = socket.create_connection(("127.0.0.1", port))
    body = struct.pack("!i", 3 << 16) + f"user\0{user}\0database\0{database}\0\0".encode()
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
