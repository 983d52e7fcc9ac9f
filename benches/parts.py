#!/usr/bin/env python3
"""Queries while thousands of calls are known in part: spans without content wait for the log events that say it.

    cargo build --release
    benches/parts.py [--rate 5000] [--seconds 30] [--work DIR] [--binary PATH]

Sends OTLP spans in requests of 500, and asks `select count(*) from logs` four times a second meanwhile. Says how many spans were
acked a second, how long the question took, and whether all are there in the end.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

KEY = "bench"
BATCH = 500
CONNECTIONS = 4


def spans(first):
    now = time.time_ns()
    made = [{
        "traceId": f"{number:032x}", "spanId": f"{number:016x}", "name": "chat gpt-4o", "kind": 3,
        "startTimeUnixNano": str(now - 10**9), "endTimeUnixNano": str(now),
        "attributes": [{"key": key, "value": value} for key, value in (
            ("gen_ai.operation.name", {"stringValue": "chat"}), ("gen_ai.request.model", {"stringValue": "gpt-4o"}),
            ("gen_ai.usage.input_tokens", {"intValue": "100"}), ("gen_ai.usage.output_tokens", {"intValue": "10"}))],
    } for number in range(first, first + BATCH)]
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": made}]}]}).encode()


def ask(address, path, body=None):
    headers = {"x-portkey-api-key": KEY, "content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"http://{address}{path}", body, headers), timeout=60) as answer:
        return answer.read()


def count(address):
    return int(ask(address, "/v1/sql?format=csv&query=select%20count(*)%20from%20logs").split()[-1])


def send(address, worker, args, acked):
    each = args.rate / CONNECTIONS
    started, sent = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < args.seconds:
        if sent > passed * each:
            time.sleep(0.01)
            continue
        ask(address, "/v1/otel/v1/traces", spans(1 + worker * 10**9 + sent))
        sent += BATCH
        acked[worker] = sent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=5000)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--work", default="bench-work")
    parser.add_argument("--binary", default=f"{os.environ.get('CARGO_TARGET_DIR', 'target')}/release/gatelog")
    args = parser.parse_args()
    data = f"{args.work}/parts"
    shutil.rmtree(data, ignore_errors=True)
    os.makedirs(args.work, exist_ok=True)
    address_file = f"{args.work}/address"
    server = subprocess.Popen([args.binary, "--quiet", "serve", "--data", data, "--listen", "127.0.0.1:0",
                               "--address-file", address_file], env={**os.environ, "GATELOG_ADMIN_KEY": KEY})
    try:
        while not os.path.exists(address_file) or not open(address_file).read().strip():
            time.sleep(0.05)
        address = open(address_file).read().strip()
        acked, took = [0] * CONNECTIONS, []
        senders = [threading.Thread(target=send, args=(address, worker, args, acked)) for worker in range(CONNECTIONS)]
        [sender.start() for sender in senders]
        while any(sender.is_alive() for sender in senders):
            started = time.perf_counter()
            count(address)
            took.append((time.perf_counter() - started) * 1000)
            time.sleep(0.25)
        stored = count(address)
        peak = re.search(r"VmHWM:\s+(\d+)", open(f"/proc/{server.pid}/status").read())
        took.sort()
        print(f"{sum(acked) / args.seconds:.0f} spans/s acked; count(*): median {statistics.median(took):.0f} ms, "
              f"p95 {took[int(len(took) * 0.95)]:.0f} ms of {len(took)}; peak {int(peak[1]) // 1024} MB")
        if stored != sum(acked):
            sys.exit(f"{sum(acked)} were acked, {stored} are there")
    finally:
        server.terminate()
        server.wait()
        if os.path.exists(address_file):
            os.remove(address_file)


if __name__ == "__main__":
    main()
