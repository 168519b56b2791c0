"""Two versions of the program in one run, interleaved: proxy CPU for a point read. Writes bench/VERSIONS.md.

Usage: versions.py OLD-PROGRAM OLD-COMMIT [SECONDS] [RUNS]; the new one is target/release/ringfence. Both gateways stand in front of the
same store, with a log each. Full access is the counted workload; governed are the person with full access whose statements
are logged one by one, and the person at a masked face.
"""
import contextlib
import statistics
import sys

import rig
from rig import Contender, PROGRAM, Rig, sh

OLD = sys.argv[1]
OLD_COMMIT = sys.argv[2]
SECONDS = int(sys.argv[3]) if len(sys.argv) > 3 else 5
RUNS = int(sys.argv[4]) if len(sys.argv) > 4 else 5
CLIENTS = 8
WHO = [("full access", "feed-service"), ("durable intents", "us-engineer"), ("masked face", "singapore-analyst")]


def main():
    new = sh("git", "-C", str(rig.ROOT), "rev-parse", "--short", "HEAD").strip()
    lines = ["# Two versions side by side", "",
             f"Old is {OLD_COMMIT}, new is {new}. Point reads, {CLIENTS} clients, {RUNS} runs of {SECONDS} s each, interleaved; medians with their spread. Proxy CPU in µs for a statement.", "",
             "| protocol | contender | old | new | new to old |", "| --- | --- | --- | --- | --- |"]
    with contextlib.ExitStack() as stack:
        bench = Rig(stack)
        gateways = {}
        for name, program in (("old", OLD), ("new", PROGRAM)):
            rig.PROGRAM = program
            gateways[name] = bench.gateway(stack, f"version-{name}", "")
        rig.PROGRAM = PROGRAM
        for protocol in ("simple", "extended", "prepared"):
            for what, who in WHO:
                found = {"old": [], "new": []}
                for _ in range(RUNS):
                    for name, (pid, port) in gateways.items():
                        one = Contender(name, f"host=127.0.0.1 sslmode=disable dbname=us port={port} user={who}", pid)
                        found[name].append(one.pgbench(bench.logs, ("-f", bench.point, "-M", protocol), CLIENTS, SECONDS)["cpu"])
                median = {name: statistics.median(all) for name, all in found.items()}
                shown = [f"{median[n]:.1f} ({min(found[n]):.1f} to {max(found[n]):.1f})" for n in ("old", "new")]
                lines.append(f"| {protocol} | {what} | {shown[0]} | {shown[1]} | {median['new'] / median['old']:.2f} |")
                print(lines[-1], flush=True)
    (rig.ROOT / "bench/VERSIONS.md").write_text("\n".join(lines) + "\n")


main()
