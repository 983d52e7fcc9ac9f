"""Asks many statements, and tells which differ."""

import concurrent.futures
import sys
import threading
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
    # Seeds of statements that differ, in order.
    found: list = field(default_factory=list)

    def __add__(self, other):
        found = sorted(self.found + other.found, key=lambda seed: int(seed.rpartition(":")[2]))
        return Tally(self.asked + other.asked, self.refused + other.refused, self.empty + other.empty, found)


@dataclass(frozen=True)
class Ending:
    """When to stop before all statements were asked."""
    # Differences of a thread, after which it ends.
    most: int = 5
    # Differences of a thread, after which all end.
    enough: int | None = None
    seconds: int | None = None


def share(asker, seeds, ending, stop, out):
    """The statements of one thread. Where `out` is none, differences are counted only."""
    tally, began = Tally(), time.monotonic()
    for seed in seeds:
        overdue = ending.seconds is not None and time.monotonic() > began + ending.seconds
        if stop.is_set() or overdue or len(tally.found) >= ending.most:
            break
        query = grammar.statement(seed)
        outcome = asker.ask(query)
        tally.asked += 1
        tally.refused += outcome.refused
        tally.empty += outcome.difference is None and outcome.rows == 0
        if outcome.difference is not None:
            tally.found.append(seed)
            if ending.enough is not None and len(tally.found) >= ending.enough:
                stop.set()
            if out is not None:
                smaller = asker.ask(shrink(query, lambda query: asker.ask(query).difference))
                print(report(seed, outcome, smaller), file=out, flush=True)
    return tally


def report(seed, outcome, smaller):
    return (f"\nseed {seed}\n  as made: {outcome.gatelog}\n  gatelog: {smaller.gatelog}\n  duckdb:  {smaller.duckdb}\n"
            f"  {smaller.difference or outcome.difference}")


def run(server, base, run_seed, first, count, threads=4, ending=Ending(), out=sys.stderr):
    """Asks the statements from `first` on."""
    began, stop = time.monotonic(), threading.Event()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        shares = [(f"{run_seed}:{place}" for place in range(first + thread, first + count, threads))
                  for thread in range(threads)]
        askers = [Asker(server.url, server.key, base) for _ in shares]
        parts = pool.map(lambda asker, seeds: share(asker, seeds, ending, stop, out), askers, shares)
        total = sum(parts, Tally())
    if out is not None:
        print(f"seed {run_seed}: {total.asked} statements from {first} on, {total.refused} refused by both, {total.empty}"
              f" without rows, {len(total.found)} differ; {time.monotonic() - began:.0f} s", file=out, flush=True)
    return total
