"""The drivers' own test suites, directly and through the gateway in session and in transaction pooling: prints which tests end
differently. Not in `make test`: it needs the drivers' sources (a clone of psycopg, with its test requirements installed in
the Python that runs this; a clone of node-postgres, installed and built).

Usage: python3 tests/suites/run.py [--psycopg FOLDER] [--pg FOLDER]
"""
import argparse
import contextlib
import os
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))
from rig import Rig  # noqa: E402


class Way:
    """How a suite reaches the store."""

    def __init__(self, name, host, port, user):
        self.name, self.host, self.port, self.user = name, host, port, user

    def dsn(self):
        return f"host={self.host} port={self.port} user={self.user} password=demo dbname=us"

    def environment(self):
        return {**os.environ, "PGHOST": str(self.host), "PGPORT": str(self.port), "PGUSER": self.user, "PGPASSWORD": "demo", "PGDATABASE": "us",
                "NODE_TLS_REJECT_UNAUTHORIZED": "0"}


def psycopg(source, way):
    """Test → how it ended."""
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-m", "not slow and not timing and not mypy", "--test-dsn", way.dsn(), "tests"]
    out = subprocess.run(command, cwd=source, capture_output=True, text=True).stdout
    print(f"psycopg, {way.name}: {out.strip().splitlines()[-1]}", flush=True)
    return {test.split(" - ")[0]: end for end, test in re.findall(r"^(PASSED|FAILED|ERROR|XFAIL|XPASS) (.*)$", out, re.M)}


def pg(source, way):
    ends = {}
    for mode in ([], ["x", "binary"]):
        for test in sorted((source / "packages/pg/test/integration").rglob("*-tests.js")):
            try:
                done = subprocess.run(["node", test, *mode], cwd=source / "packages/pg", capture_output=True, env=way.environment(), timeout=60).returncode
            except subprocess.TimeoutExpired:
                done = "timeout"
            ends[f"{test.relative_to(source)} {' '.join(mode[1:])}"] = done
    print(f"pg, {way.name}: {sum(end == 0 for end in ends.values())} of {len(ends)} passed", flush=True)
    return ends


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--psycopg", type=pathlib.Path)
    parser.add_argument("--pg", type=pathlib.Path)
    chosen = parser.parse_args()
    with contextlib.ExitStack() as stack:
        rig = Rig(stack)
        rig.sql("create role bench login password 'demo' in role clips_app; grant ringfence_others to bench; alter role bench set role = 'clips_app'",
                "grant create on schema public to clips_app; grant create on database us to clips_app")
        gateway = lambda mode, size: rig.gateway(stack, mode, f'pool_mode = "{mode}"\npool_size = {size}\n')[1]
        ways = [Way("directly", rig.socket_dir, 5432, "bench"),
                Way("session pooling", "127.0.0.1", gateway("session", 200), "feed-service"),
                Way("transaction pooling", "127.0.0.1", gateway("transaction", 50), "feed-service")]
        for source, suite in ((chosen.psycopg, psycopg), (chosen.pg, pg)):
            if source is None:
                continue
            ends = [suite(source.resolve(), way) for way in ways]
            for way, these in zip(ways[1:], ends[1:]):
                for test in sorted(set(ends[0]) | set(these)):
                    if ends[0].get(test) != these.get(test):
                        print(f"  {way.name}: {test}: {these.get(test)}, directly {ends[0].get(test)}")


if __name__ == "__main__":
    main()
