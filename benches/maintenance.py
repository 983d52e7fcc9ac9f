#!/usr/bin/env python3
"""Measures how often maintenance writes a byte from its flush until its day is sealed, read from the table's own log.

    cargo build --release
    benches/maintenance.py [--records 1000000] [--flush 1MiB] [--work DIR] [--binary PATH]

One import of one past day with small flushes, whose files are joined each second as a running server joins today's each
minute, then the sealing by hand. Amplification is what merges and sealing wrote, over what flushes wrote.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path


def measured(command):
    """Seconds that a command took, and the most memory that it had, MB."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {' '.join(command)}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def written(table):
    """Files and bytes of each kind that the log of a table names, how many files were live at most, and how many are."""
    kinds = {"flushed": [0, 0], "merged": [0, 0], "sealed": [0, 0]}
    live, most = set(), 0
    for commit in sorted(Path(table, "_delta_log").glob("*[0-9].json")):
        actions = [json.loads(line) for line in commit.read_text().splitlines()]
        adds = [action["add"] for action in actions if "add" in action]
        removes = {action["remove"]["path"] for action in actions if "remove" in action}
        for add in adds:
            kind = kinds["sealed" if "/sealed-" in add["path"] else "merged" if removes else "flushed"]
            kind[0] += 1
            kind[1] += add["size"]
        live = (live - removes) | {add["path"] for add in adds}
        most = max(most, len(live))
    return kinds, most, len(live)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--flush", default="1MiB", help="rows in memory that start a flush")
    parser.add_argument("--work", default="bench-work")
    parser.add_argument("--binary", default=f"{os.environ.get('CARGO_TARGET_DIR', 'target')}/release/gatelog")
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    source, data = f"{args.work}/day.ndjson", f"{args.work}/maintenance"
    subprocess.run([args.binary, "--quiet", "demo", "--records", str(args.records), "--days", "1",
                    "--end", "2026-01-02T00:00:00Z", "--jsonl", source], check=True)
    shutil.rmtree(data, ignore_errors=True)
    # The log is read at the end, so it must be whole.
    common = [args.binary, "--quiet", "--data", data, "--set", "clean_log_schedule=1d"]
    importing = measured([*common, "--set", f"flush_bytes={args.flush}", "--set", "compact_schedule=1s", "import", source])
    sealing = measured([*common, "maintain", "compact"])

    kinds, most, left = written(f"{data}/logs")
    flushed = kinds["flushed"][1]
    for kind, (files, size) in kinds.items():
        print(f"{kind:8} {files:6} files {size / 1e6:10.1f} MB  {size / flushed:5.2f} of what was flushed")
    print(f"amplification {(kinds['merged'][1] + kinds['sealed'][1]) / flushed:.2f}; at most {most} files, {left} in the end")
    print(f"import {importing[0]:.1f} s, peak {importing[1]:.0f} MB; sealing {sealing[0]:.1f} s, peak {sealing[1]:.0f} MB")


if __name__ == "__main__":
    main()
