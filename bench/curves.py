"""How cost grows: with clients, with the size of a result, with grants, tables and policies."""
import base64
import contextlib
import hashlib
import os
import signal
import struct
import time

import charts
from rig import ROOT, Contender, cpu_seconds, log_in, memory_kib, query, sh


class Curves:
    def __init__(self, rig, stack, seconds):
        self.rig, self.seconds, self.lines = rig, seconds, []
        self.one = stack.enter_context(contextlib.ExitStack())

    def run(self):
        self.lines += ["", "## How cost grows"]
        for curve in (self.clients, self.results, self.tables, self.policies, self.grants):  # ten thousand grants are work for all that come after
            curve()
        self.one.close()
        return self.lines

    def pooled(self, name, change=lambda text: text):
        self.one.close()  # the one of the measurement before would take part in the load
        pid, port = self.rig.gateway(self.one, name, 'pool_mode = "transaction"\npool_size = 20\n', change)
        at = lambda user: Contender(user, f"host=127.0.0.1 port={port} user={user} dbname=us sslmode=disable", pid)
        return pid, port, at

    def read(self, contender, clients, arguments=None):
        return contender.pgbench(self.rig.logs, arguments or ("-f", self.rig.point, "-M", "prepared"), clients, self.seconds)

    def table(self, title, head, rows):
        self.lines += ["", f"### {title}", "", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
        self.lines += [f"| {' | '.join(row)} |" for row in rows]

    def clients(self):
        _, _, at = self.pooled("curve-clients")
        rows, cpu = [], {"counted, full access": [], "masked face, durable intents": []}
        for clients in (1, 8, 32, 128, 512, 1000, 2000):
            row = [f"{clients:,}"]
            for label, user in zip(cpu, ("feed-service", "singapore-analyst")):
                point = self.read(at(user), clients)
                cpu[label].append((clients, point["cpu"]))
                row += [f"{point['tps']:,.0f}", f"{point['p99']:.2f}", f"{point['cpu']:.1f}"]
            print("clients", row, flush=True)
            rows.append(row)
        self.table("Clients over 20 connections (prepared point reads)",
                   ["clients", "counted: tps", "p99 ms", "CPU µs", "masked: tps", "p99 ms", "CPU µs"], rows)
        self.lines += ["", charts.curve("clients", "Proxy CPU for a statement, by clients", "clients", "µs", cpu)]

    def results(self):
        _, _, at = self.pooled("curve-results")
        rows, cpu = [], {"counted, full access": [], "masked face, durable intents": []}
        script = self.rig.folder / "rows.sql"
        for count in (1, 10, 100, 1000, 10_000, 100_000):
            script.write_text(f"select id, country, email, phone, full_name from users where id <= {count};\n")
            row = [f"{count:,}"]
            for label, user in zip(cpu, ("feed-service", "singapore-analyst")):
                point = self.read(at(user), 2, ("-f", script))
                cpu[label].append((count, point["cpu"] / count))
                row += [f"{point['p50']:.2f}", f"{point['cpu']:.0f}", f"{point['cpu'] / count:.3f}"]
            print("results", row, flush=True)
            rows.append(row)
        self.table("Rows in a result (2 clients)", ["rows", "counted: ms", "CPU µs", "a row", "masked: ms", "CPU µs", "a row"], rows)
        self.lines += ["", charts.curve("results", "Proxy CPU for a row, by rows in the result", "rows", "µs a row", cpu)]

    def grants(self):
        """Signed grants of as many people, of which one is ours."""
        pid, port, at = self.pooled("curve-grants")
        first = self.rig.grant("id > 0")
        rows, series, made = [], {"idle, % of a core": [], "login, ms": []}, 1
        for wanted in (1, 100, 1000, 10_000):
            self.more_grants(first, made, wanted)
            made = wanted
            time.sleep(8)
            idle, began = cpu_seconds(pid), time.time()
            time.sleep(5)
            idle = (cpu_seconds(pid) - idle) / (time.time() - began) * 100
            login = self.login(port, "singapore-analyst")
            point = self.read(at("singapore-analyst"), 8)
            series["idle, % of a core"].append((wanted, idle))
            series["login, ms"].append((wanted, login))
            rows.append([f"{wanted:,}", f"{idle:.1f}", f"{memory_kib(pid) / 1024:.1f}", f"{login:.1f}", f"{point['tps']:,.0f}", f"{point['cpu']:.1f}"])
            print("grants", rows[-1], flush=True)
        self.table("Grants in force, of as many people", ["grants", "gateway idle, % of a core", "memory MiB", "login ms", "reads/s (8 clients)", "CPU µs a read"], rows)
        self.lines += ["", charts.curve("grants", "A gateway with many grants in force", "grants", "", series)]

    def login(self, port, user, rounds=30):
        took = []
        for _ in range(rounds):
            began = time.perf_counter()
            client = log_in(port, user)
            query(client, "select 1")
            client.recv(100)
            took.append((time.perf_counter() - began) * 1000)
            client.close()
        return sorted(took)[rounds // 2]

    def logging_in(self, port, at):
        """The first login and the later ones, in ms, and then the reads."""
        began = time.perf_counter()
        log_in(port, "singapore-analyst").close()
        first = (time.perf_counter() - began) * 1000
        return first, self.login(port, "singapore-analyst"), self.read(at("singapore-analyst"), 8)

    def more_grants(self, like, start, end):
        if end <= start:
            return
        control = f"host={(self.rig.demo / 'control').resolve()} user=postgres dbname=control"
        psql = lambda sql: sh("psql", "-X", "-q", "-At", "-d", control, "-c", sql).strip()
        canonical = psql(f"select canonical from ringfence.requests where id = '{like}'")
        granted = psql(f"select granted from ringfence.requests where id = '{like}'")
        signers = {name: Signer(self.rig.demo / "keys" / name) for name in ("us-approver-1", "us-approver-2")}
        with open(self.rig.folder / "requests", "w") as requests, open(self.rig.folder / "approvals", "w") as approvals:
            for n in range(start, end):
                name, who = f"R-CURVE{n}", f"somebody-{n}"
                text = canonical.replace(like, name).replace("singapore-analyst", who)
                escaped = text.replace("\\", "\\\\")
                requests.write(f"{name}\t{escaped}\t{who}\tus\tgranted\t{n}\t{granted}\n")
                for signer in signers:
                    signature = signers[signer].sign(text.encode()).replace("\n", "\\n")
                    approvals.write(f"{name}\t{signer}\t{signature}\t{n}\n")
        psql(f"\\copy ringfence.requests (id, canonical, requester, store, state, created, granted) from '{self.rig.folder / 'requests'}'")
        psql(f"\\copy ringfence.approvals from '{self.rig.folder / 'approvals'}'")

    def tables(self):
        rows, series = [], {"first login, which compiles the face": [], "later logins": []}
        for count in (10, 100, 500, 2000):
            have = int(self.rig.sql("select count(*) from pg_tables where tablename like 'wide\\_%'"))
            for start in range(have, count, 100):
                each = "".join(f"create table public.wide_{n} (id bigint primary key, a text, b text, c text); alter table wide_{n} owner to clips_owner;" for n in range(start, min(start + 100, count)))
                self.rig.sql("set client_min_messages = error; " + each)
            catalogue = (self.rig.demo / "catalogue.toml").read_text()
            for n in range(count):
                catalogue += f'\n[tables.wide_{n}]\nsubject = "id"\n[tables.wide_{n}.columns]\nid = "public"\na = "public"\nb = {{ protected = "contact", kind = "email" }}\nc = "public"\n'
            (self.rig.demo / "catalogue-wide.toml").write_text(catalogue)
            pid, port, at = self.pooled(f"curve-tables-{count}", lambda text: text.replace('catalogue = "catalogue.toml"', 'catalogue = "catalogue-wide.toml"', 1))
            first, later, point = self.logging_in(port, at)
            series["first login, which compiles the face"].append((count, first))
            series["later logins"].append((count, later))
            rows.append([f"{count:,}", f"{first:,.0f}", f"{later:.1f}", f"{memory_kib(pid) / 1024:.1f}", f"{point['tps']:,.0f}", f"{point['cpu']:.1f}"])
            print("tables", rows[-1], flush=True)
        self.table("Tables besides the demo's four, of four columns each", ["tables", "first login ms", "later logins ms", "gateway's memory MiB", "reads/s (8 clients)", "CPU µs a read"], rows)
        self.lines += ["", charts.curve("tables", "Logging in at a store with many tables", "tables", "ms", series)]

    def policies(self):
        rows = []
        default = (ROOT / "policies/default.cedar").read_text()
        series = {"first login after the rules changed": [], "later logins": []}
        for count in (0, 100, 1000, 10_000):
            more = "".join(f'\n@id("more-{n}")\npermit(principal == Ringfence::Person::"somebody-{n}", action == Ringfence::Action::"full_access", resource == Ringfence::Store::"us");' for n in range(count))
            path = self.rig.demo / "many.cedar"
            path.write_text(default + more)
            pid, port, at = self.pooled(f"curve-policies-{count}", lambda text: text.replace("[policy]\n", '[policy]\npolicies = "many.cedar"\n'))
            log_in(port, "singapore-analyst").close()
            path.write_text(default + more + "\n// changed\n")
            os.kill(pid, signal.SIGHUP)
            time.sleep(3)
            first, later, point = self.logging_in(port, at)
            series["first login after the rules changed"].append((count, first))
            series["later logins"].append((count, later))
            rows.append([f"{count:,}", f"{first:,.1f}", f"{later:.1f}", f"{point['tps']:,.0f}", f"{point['cpu']:.1f}"])
            print("policies", rows[-1], flush=True)
        self.table("Policies besides the default ones", ["policies", "first login ms", "later logins ms", "reads/s (8 clients)", "CPU µs a read"], rows)
        self.lines += ["", charts.curve("policies", "Logging in under many policies", "policies", "ms", series)]


class Signer:
    """SSHSIG (OpenSSH PROTOCOL.sshsig) with an Ed25519 key, for thousands of approvals; `ssh-keygen` takes 10 ms for each."""

    def __init__(self, path):
        from cryptography.hazmat.primitives import serialization
        self.key = serialization.load_ssh_private_key(path.read_bytes(), None)
        public = self.key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.public = string(b"ssh-ed25519") + string(public)

    def sign(self, message):
        namespace, algorithm = string(b"ringfence-approval"), string(b"sha512")
        signed = b"SSHSIG" + namespace + string(b"") + algorithm + string(hashlib.sha512(message).digest())
        signature = string(b"ssh-ed25519") + string(self.key.sign(signed))
        blob = b"SSHSIG" + struct.pack("!I", 1) + string(self.public) + namespace + string(b"") + algorithm + string(signature)
        text = base64.b64encode(blob).decode()
        lines = "\n".join(text[i:i + 70] for i in range(0, len(text), 70))
        return f"-----BEGIN SSH SIGNATURE-----\n{lines}\n-----END SSH SIGNATURE-----\n"


def string(data):
    return struct.pack("!I", len(data)) + data
