"""Asks many statements, and tells which differ."""

import concurrent.futures
import sys
import time
from dataclasses import dataclass, field

from . import grammar
from .compare import Asker
from .shrink import shrink


@dataclass
class Tally:
    asked: int = 0
    refused: int = 0
    empty: int = 0
    found: list = field(default_factory=list)


def share(asker, seeds, most, until, out):
    """The statements of one thread."""
    tally = Tally()
    for seed in seeds:
        if until is not None and time.monotonic() > until or len(tally.found) >= most:
            break
        query = grammar.statement(seed)
        outcome = asker.ask(query)
        tally.asked += 1
        tally.refused += outcome.refused
        tally.empty += outcome.difference is None and outcome.rows == 0
        if outcome.difference is not None:
            smaller = asker.ask(shrink(query, lambda query: asker.ask(query).difference))
            tally.found.append(seed)
            print(report(seed, outcome, smaller), file=out, flush=True)
    return tally


def report(seed, outcome, smaller):
    return (f"\nseed {seed}\n  as made: {outcome.gatelog}\n  gatelog: {smaller.gatelog}\n  duckdb:  {smaller.duckdb}\n"
            f"  {smaller.difference or outcome.difference}")


def run(server, base, run_seed, first, count, threads=4, most=5, seconds=None, out=sys.stderr):
    """Asks the statements from `first` on, `count` of them or as many as there is time for."""
    began = time.monotonic()
    until = None if seconds is None else began + seconds
    total = Tally()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        shares = [(f"{run_seed}:{place}" for place in range(first + thread, first + count, threads))
                  for thread in range(threads)]
        askers = [Asker(server.url, server.key, base) for _ in shares]
        for part in pool.map(lambda asker, seeds: share(asker, seeds, most, until, out), askers, shares):
            total = Tally(total.asked + part.asked, total.refused + part.refused, total.empty + part.empty,
                          total.found + part.found)
    print(f"seed {run_seed}: {total.asked} statements from {first} on, {total.refused} refused by both, {total.empty} without"
          f" rows, {len(total.found)} differ; {time.monotonic() - began:.0f} s", file=out, flush=True)
    return total
