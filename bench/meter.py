"""What the meter costs: the same masked face, read by somebody in the country (not metered) and by somebody abroad (metered), side
by side in one run, in turns. Writes bench/METER.md.

Usage: python3 bench/meter.py [SECONDS] [RUNS]
"""
import contextlib
import datetime
import os
import platform
import re
import statistics
import subprocess
import sys
import time

from rig import BIN, ENV, ROOT, PROGRAM, Rig, memory_kib, sh

SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 4
RUNS = int(sys.argv[2]) if len(sys.argv) > 2 else 3
INSIDE, ABROAD = "us-approver-1", "singapore-analyst"
KEYED = "\\set id random(1, 100000)\nSELECT id, email FROM users WHERE id = :id;\n"
PUBLIC = "\\set id random(1, 100000)\nSELECT id, country FROM users WHERE id = :id;\n"


def main():
    with contextlib.ExitStack() as stack:
        rig = Rig(stack)
        config = (rig.demo / "ringfence.toml").read_text()
        port = int(re.search(r"127\.0\.0\.1:(\d+)", config).group(1))
        dsn = lambda who: f"host=127.0.0.1 port={port} user={who} dbname=us"
        pid = int(subprocess.run(["pgrep", "-f", f"demo --dir {rig.demo}"], capture_output=True, text=True).stdout.split()[0])

        def tps(who, script, mode):
            file = rig.folder / "script.sql"
            file.write_text(script)
            out = sh(f"{BIN}/pgbench", "-n", "-M", mode, "-c", 8, "-j", 2, "-T", SECONDS, "-f", file, dsn(who))
            return float(re.search(r"tps = ([\d.]+)", out).group(1))

        def bulk(who):
            began = time.monotonic()
            sh("psql", dsn(who), "-X", "-q", "-o", "/dev/null", "-c", "select id, email, phone from users")
            return time.monotonic() - began

        rows = []

        def compare(what, measure, unit, more_is_better=True):
            measure(INSIDE), measure(ABROAD)  # warm
            pairs = [(measure(INSIDE), measure(ABROAD)) for _ in range(RUNS)]
            inside, abroad = (statistics.median(p[i] for p in pairs) for i in (0, 1))
            ratio = abroad / inside if more_is_better else inside / abroad
            rows.append(f"| {what} | {inside:,.0f} {unit} | {abroad:,.0f} {unit} | {ratio:.2f} |")
            print(rows[-1], flush=True)

        people = int(sh("psql", dsn("us-engineer"), "-X", "-A", "-t", "-c", "select count(*) from users"))
        before = memory_kib(pid)
        # First everybody is new; each person is new once a day.
        first = [bulk(INSIDE), bulk(ABROAD)]
        rows.append(f"| all {people:,} people at once, each for the first time (one run) | {people / first[0]:,.0f} rows/s | {people / first[1]:,.0f} rows/s | {first[0] / first[1]:.2f} |")
        print(rows[-1], flush=True)
        after = memory_kib(pid)
        compare("the same, all known that day", lambda who: people / bulk(who), "rows/s")
        for mode in ("simple", "prepared"):
            compare(f"one person by key, {mode}, 8 clients, known that day", lambda who: tps(who, KEYED, mode), "tps")
            compare(f"public columns only, {mode}, 8 clients", lambda who: tps(who, PUBLIC, mode), "tps")
        log = sum(f.stat().st_size for f in (rig.demo / "ledger/private").glob("*"))
        began = time.monotonic()
        said = subprocess.run([PROGRAM, "meter", "--json", "--config", rig.demo / "ringfence.toml"], capture_output=True, text=True, env=ENV).stdout
        counted = time.monotonic() - began
        entries = int(re.search(r'"entries": (\d+)', said).group(1))
        machine = f"{platform.machine()}, {os.cpu_count()} shared cores, {datetime.date.today()}"
        text = f"""# What the meter costs

Made by `bench/meter.py` ({machine}); medians of {RUNS} runs of {SECONDS} s, in turns. The same masked face through the same gateway: `{INSIDE}` is in the
country and not metered, `{ABROAD}` is abroad. Both have each statement's intent durable before its first row.

| reading | in the country | abroad, metered | ratio |
| --- | --- | --- | --- |
{chr(10).join(rows)}

The gateway's memory grew by {(after - before) / 1024:.1f} MiB over the first two readings of all {people:,} people (each counted for a person and for a company). `ringfence meter` counted {entries:,} entries
({log / 1e6:,.0f} MB) anew in {counted:.2f} s.
"""
        (ROOT / "bench/METER.md").write_text(text)


main()
