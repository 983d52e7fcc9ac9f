#!/usr/bin/env python3
"""What rules of redaction cost an import: the same records without rules, with a path, and with three patterns.

    cargo build --release
    benches/redact.py [RECORDS.ndjson] [--times 5] [--work DIR] [--binary PATH]

Without a file it makes one with `gatelog demo --jsonl` (100,000 records). Prints medians; the rules take turns, so that a
machine that slows down slows all of them.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import time

RULES = {
    "no rules": "",
    "one path": "[redact.user]\npaths = ['request.body.user']\n",
    "three patterns": r"""
[redact.mail]
pattern = '[\w.+-]+@[\w-]+\.[\w.]+'
[redact.card]
pattern = '\b\d{4}[ -]?\d{4}[ -]?\d{4}[ -]?\d{4}\b'
[redact.key]
pattern = 'sk-\w{20,}'
""",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", nargs="?")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--work", default="bench-work")
    parser.add_argument("--binary", default=f"{os.environ.get('CARGO_TARGET_DIR', 'target')}/release/gatelog")
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    source = args.records
    if not source:
        source = f"{args.work}/redact.ndjson"
        subprocess.run([args.binary, "--quiet", "demo", "--records", "100000", "--jsonl", source], check=True)
    data, config = f"{args.work}/redact", f"{args.work}/redact.toml"
    taken = {name: [] for name in RULES}
    for _ in range(args.times):
        for name, rules in RULES.items():
            shutil.rmtree(data, ignore_errors=True)
            with open(config, "w") as file:
                file.write(rules)
            started = time.perf_counter()
            subprocess.run([args.binary, "--quiet", "--data", data, "--config", config, "import", source], check=True,
                           stdout=subprocess.DEVNULL)
            taken[name].append(time.perf_counter() - started)
    megabytes, plain = os.path.getsize(source) / 1e6, statistics.median(taken["no rules"])
    for name, seconds in taken.items():
        median = statistics.median(seconds)
        print(f"{name:15} {megabytes / median:8.1f} MB/s of JSON, {median / plain:5.2f} times as long as without rules")


if __name__ == "__main__":
    main()
