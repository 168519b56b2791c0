"""Mixed load for a long time: clients that come and go, grants that are made, used, revoked or expire, faces that are compiled
and dropped, clients that die in the middle, reloads, a store that restarts. Writes bench/SOAK.md: what memory, descriptors and
threads of the gateways did meanwhile. Exits with 1 if something grew, or if a log does not verify.

Usage: python3 bench/soak.py [MINUTES]
"""
import contextlib
import datetime
import os
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import threading
import time

from rig import BIN, ENV, PROGRAM, ROOT, Rig, memory_kib, sh

MINUTES = float(sys.argv[1]) if len(sys.argv) > 1 else 60
EVERY = 10  # seconds between looks
WORKLOADS = ("feed-service", "us-engineer", "singapore-analyst")


class Soak:
    def __init__(self, stack):
        self.rig = Rig(stack)
        more = "store_wait = 30\nserver_idle = 60\n"
        self.gateways = {mode: self.rig.gateway(stack, mode, f'pool_mode = "{mode}"\n{more}') for mode in ("session", "transaction")}
        self.until = time.time() + MINUTES * 60
        self.done, self.failed = {}, {}
        self.lock = threading.Lock()

    def note(self, what, count=1, failed=False):
        with self.lock:
            into = self.failed if failed else self.done
            into[what] = into.get(what, 0) + count

    def forever(self, work, pause):
        """Repeats until the time is over; an error is counted, not fatal: stores restart and grants end meanwhile."""
        def loop():
            while time.time() < self.until:
                try:
                    work()
                except (RuntimeError, subprocess.SubprocessError) as e:
                    self.note(f"{work.__name__}: {str(e).strip().splitlines()[-1][:90]}", failed=True)
                time.sleep(max(min(random.uniform(0.2, 1.8) * pause, self.until - time.time()), 0))
        thread = threading.Thread(target=loop)
        thread.start()
        return thread

    def dsn(self, user):
        _, port = random.choice(list(self.gateways.values()))
        return f"host=127.0.0.1 port={port} dbname=us user={user} sslmode={random.choice(('disable', 'require'))}"

    def clients(self):
        """Some clients at a moderate rate, each with the same connection or a new one for each read."""
        arguments = ["-n", "-f", self.rig.point, "-M", random.choice(("simple", "extended", "prepared")), "-c", random.randint(1, 30), "-j", 1,
                     "-T", random.randint(2, 12), "-R", random.choice((20, 60, 150))]
        if random.random() < 0.2:
            arguments.append("-C")
        out = sh(f"{BIN}/pgbench", *arguments, self.dsn(random.choice(WORKLOADS)), timeout=120)
        self.note("reads", int(out.split("actually processed: ")[1].split()[0].split("/")[0]))

    def grants(self):
        top = random.randint(1, self.rig.top)
        request = self.rig.grant(f"id < {top}", "1m")
        sh("psql", "-X", "-q", "-At", "-d", self.dsn("singapore-analyst"), "-c", "select count(email) from users where id < 100")
        if random.random() < 0.7:
            self.rig.revoke(request)
        self.note("grants")

    def deaths(self):
        """A client that is killed in the middle of a large result."""
        command = ["psql", "-X", "-q", "-At", "-d", self.dsn(random.choice(WORKLOADS)), "-c", "select * from events a, generate_series(1, 50) limit 3000000"]
        with subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
            client.stdout.read(random.randint(1, 200_000))
            client.kill()
        self.note("clients killed")

    def reloads(self):
        for pid, _ in self.gateways.values():
            os.kill(pid, signal.SIGHUP)
        self.note("reloads")

    def restarts(self):
        self.rig.restart_store()
        self.note("restarts of the store")

    def look(self):
        def of(pid):
            return memory_kib(pid), len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))
        return {mode: of(pid) for mode, (pid, _) in self.gateways.items()}

    def run(self):
        began, looks, self.calm = time.time(), [], self.look()
        threads = [self.forever(work, pause) for work, pause in
                   [(self.clients, 0.5)] * 4 + [(self.grants, 8), (self.deaths, 15), (self.reloads, 120), (self.restarts, 600)]]
        while time.time() < self.until:
            looks.append((time.time() - began, self.look()))
            time.sleep(EVERY)
        for thread in threads:
            thread.join()
        time.sleep(150)  # unused connections are closed after 60 s, and looked for each minute
        quiet = self.look()
        for pid, _ in self.gateways.values():
            os.kill(pid, signal.SIGTERM)
        time.sleep(5)
        return looks, quiet

    def verify(self, mode):
        out = sh(PROGRAM, "ledger", "verify", "--dir", self.rig.demo / f"ledger-{mode}", "--config", self.rig.config)
        return out.splitlines()[0]


def growth(looks, mode, which):
    """Medians of the second and of the last quarter: the first one is warming up."""
    series = [look[mode][which] for _, look in looks]
    quarter = max(len(series) // 4, 1)
    return statistics.median(series[quarter:2 * quarter]), statistics.median(series[-quarter:]), max(series)


def main():
    with contextlib.ExitStack() as stack:
        soak = Soak(stack)
        looks, quiet = soak.run()
        lines = ["# Soak", "", f"`python3 bench/soak.py {MINUTES:g}` on {datetime.date.today()}: {MINUTES:g} minutes of " +
                 ", ".join(f"{count:,} {what}" for what, count in sorted(soak.done.items())) + ". Errors that clients saw, as a store restarts, grants end and rules "
                 "are read anew: " + ("; ".join(f"{count} × {what}" for what, count in sorted(soak.failed.items())) or "none") + ".", "",
                 "| gateway | what | before | second quarter, median | last quarter, median | most | 150 s after |", "| --- | --- | --- | --- | --- | --- | --- |"]
        grew = False
        for mode in soak.gateways:
            for which, (what, slack) in enumerate((("memory, MiB", 1.15), ("descriptors", None), ("threads", 1.0))):
                before, after, most = growth(looks, mode, which)
                unit = 1024 if which == 0 else 1
                # How many descriptors there are depends on how many clients there are: those that stay without any count.
                grew |= quiet[mode][which] > soak.calm[mode][which] + 10 if what == "descriptors" else after > before * slack
                lines.append(f"| {mode} pooling | {what} | {soak.calm[mode][which] / unit:,.1f} | {before / unit:,.1f} | {after / unit:,.1f} | {most / unit:,.1f} | {quiet[mode][which] / unit:,.1f} |")
        lines += ["", "Nothing grew." if not grew else "**Something grew.**", ""]
        wrong = False
        for mode in soak.gateways:
            try:
                lines.append(f"{mode.capitalize()} pooling: {soak.verify(mode)}")
            except RuntimeError as e:
                wrong = True
                lines.append(f"**{mode.capitalize()} pooling: {e}**")
        (ROOT / "bench/SOAK.md").write_text("\n".join(lines) + "\n")
        print("\n".join(lines))
    return int(grew or wrong)


if __name__ == "__main__":
    sys.exit(main())
