"""Clients that misbehave, and a revocation with a thousand sessions: what it costs the gateway and what others notice."""
import contextlib
import json
import select
import socket
import statistics
import struct
import threading
import time

from rig import Contender, log_in, memory_kib, query

SESSIONS = 1000


class Abuse:
    def __init__(self, rig, stack):
        self.rig = rig
        self.pid, self.port = rig.gateway(stack, "abuse", 'pool_mode = "transaction"\npool_size = 20\n')
        self.others = Contender("others", f"host=127.0.0.1 port={self.port} user=feed-service dbname=us sslmode=disable", self.pid)
        self.lines = []

    def measure_others(self, seconds=4):
        return self.others.pgbench(self.rig.logs, ("-f", self.rig.point, "-M", "prepared"), 8, seconds)

    def during(self, what, begin):
        """`begin` starts the abuse and returns what ends it; the others' reads are measured before and meanwhile."""
        before, memory = self.measure_others(), memory_kib(self.pid)
        peak, watching = [memory], threading.Event()

        def watch():
            while not watching.wait(0.05):
                peak.append(memory_kib(self.pid))

        watcher = threading.Thread(target=watch)
        end = begin()
        watcher.start()
        meanwhile = self.measure_others()
        watching.set()
        watcher.join()
        told = end()
        time.sleep(1)
        after = memory_kib(self.pid)
        print(f"{what}: {meanwhile['tps'] / before['tps']:.2f} of the others' tps, peak {max(peak) / 1024:.0f} MiB; {told}", flush=True)
        self.lines.append(f"| {what} | {memory / 1024:.1f} / {max(peak) / 1024:.1f} / {after / 1024:.1f} | {meanwhile['tps'] / before['tps']:.2f} | "
                          f"{meanwhile['p99'] / before['p99']:.2f} | {told} |")

    def never_read(self):
        """Each asks for a gigabyte and takes none of it. They are other people's connections to the store than the others'."""
        clients = [log_in(self.port, "us-engineer") for _ in range(15)]
        for client in clients:
            query(client, "select repeat('x', 1000) from generate_series(1, 1000000)")
        return self.closing(clients, "what is not taken stays in the store")

    def pipeline_unread(self):
        """Each sends statements without end and reads no answer."""
        clients = [log_in(self.port, "us-engineer") for _ in range(15)]
        sent = [0]
        for client in clients:
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                for _ in range(100_000):
                    sent[0] += query(client, "select repeat('x', 10000)")
        return self.closing(clients, f"the gateway took {sent[0] / len(clients) / 1024:,.0f} KiB of each and then no more")

    def half_open(self):
        """Connections on which nothing is said, or half a startup packet."""
        clients = []
        for i in range(2000):
            client = socket.create_connection(("127.0.0.1", self.port))
            if i % 2:
                client.sendall(b"\0\0\1\0\0\3")
            clients.append(client)
        began = time.time()

        def end():
            left = {c.fileno(): c for c in clients}
            poll = select.poll()
            for fd in left:
                poll.register(fd, select.POLLIN)
            while left and time.time() < began + 40:
                for fd, _ in poll.poll(1000):
                    poll.unregister(fd)
                    left.pop(fd).close()
            return f"all but {len(left)} were closed after {time.time() - began:.0f} s (login_timeout is 15)"
        return end

    def flood(self):
        """Four threads that connect and leave, as fast as they can."""
        stop, count = threading.Event(), [0]

        def connect():
            while not stop.is_set():
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)) as client:
                    client.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")
                    client.recv(1)
                    count[0] += 1
        threads = [threading.Thread(target=connect) for _ in range(4)]
        for thread in threads:
            thread.start()

        def end():
            stop.set()
            for thread in threads:
                thread.join()
            return f"{count[0]:,} connections; the load alone takes CPU from the others"
        return end

    def lying_lengths(self):
        """Frames that claim a gigabyte, of which a little comes."""
        clients = [log_in(self.port, user) for user in ("us-engineer", "feed-service") for _ in range(50)]
        for client in clients:
            client.sendall(b"Q" + struct.pack("!i", 0x3fff_fff0) + b"select 1 " * 1000)
        return self.closing(clients, "memory follows what has come, not what is claimed")

    @staticmethod
    def closing(clients, told):
        def end():
            for client in clients:
                client.close()
            return told
        return end

    def run(self):
        self.lines += ["", "## Clients that misbehave", "",
                       "8 others read points meanwhile, over their own connections to the store; their tps and p99 are to those of the moment before.", "",
                       "| what | gateway's memory before / most / after, MiB | others' tps | others' p99 | |", "| --- | --- | --- | --- | --- |"]
        for what, work in (("15 clients that ask for 1 GB and never read", self.never_read), ("15 clients that send statements and never read", self.pipeline_unread),
                           ("2,000 connections that say nothing, or half a packet", self.half_open), ("4 threads that connect and leave", self.flood),
                           ("100 clients whose frames claim 1 GiB", self.lying_lengths)):
            self.during(what, work)
        self.revocation()
        return self.lines

    def revocation(self):
        """From the moment at which the approver's command is sent to the moment at which each session hears that it is over."""
        rounds = []
        for number in range(5):
            request = self.rig.grant(f"id > {number}")
            time.sleep(2)  # it was made at another gateway: this one looks each second
            sessions = {}
            for _ in range(SESSIONS):
                client = log_in(self.port, "singapore-analyst")
                sessions[client.fileno()] = client
            for client in list(sessions.values())[:20]:
                query(client, "select email from users where id = 4711")
            time.sleep(1)
            for client in sessions.values():
                client.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    client.recv(1 << 16)
            poll = select.epoll()
            for fd in sessions:
                poll.register(fd, select.EPOLLIN)
            approver = log_in(self.port, "us-approver-1", "ringfence")
            began, heard = time.perf_counter(), []
            query(approver, json.dumps({"do": "revoke", "id": request, "reason": "bench"}))
            while len(heard) < SESSIONS and time.perf_counter() < began + 10:
                for fd, _ in poll.poll(1):
                    heard.append((time.perf_counter() - began) * 1000)
                    poll.unregister(fd)
            approver.close()
            for client in sessions.values():
                client.close()
            if len(heard) < SESSIONS:
                raise RuntimeError(f"only {len(heard)} of {SESSIONS} sessions heard of it")
            rounds.append((statistics.median(heard), heard[int(SESSIONS * 0.99) - 1], heard[-1]))
            print(f"revocation: {rounds[-1]}", flush=True)
            time.sleep(1)
        middle = [statistics.median(r[i] for r in rounds) for i in range(3)]
        self.lines += ["", f"A revocation with {SESSIONS:,} sessions that depend on the grant, from the approver's command to each session's own error (medians of 5 rounds): "
                       f"p50 {middle[0]:.1f} ms, p99 {middle[1]:.1f} ms, the last {middle[2]:.1f} ms. The command itself puts the revocation on record first."]

