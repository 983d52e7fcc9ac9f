"""Runs statements against a server of this build, in a fresh folder."""

import argparse
import pathlib
import shutil
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import conftest

from . import grammar, rows, serve, workarounds
from .compare import Asker
from .run import Ending, run


def options():
    parser = argparse.ArgumentParser(prog="differential")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--most", type=int, default=5, help="differences of a thread, after which it ends")
    parser.add_argument("--seconds", type=int, help="stops after that time")
    parser.add_argument("--only", type=int, help="asks one statement and shows both answers")
    parser.add_argument("--without", help="with each of these workarounds switched off in turn, tells how many statements"
                        f" differ and which is the first: all, or some of {', '.join(workarounds.NAMES)}")
    return parser.parse_args()


def main():
    asked = options()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        parts = rows.logs()
        serve.import_files(conftest.BINARY, folder, parts)
        if asked.without is not None:
            names = workarounds.NAMES if asked.without == "all" else asked.without.split(",")
            return 0 if all([found_without(asked, folder, parts, name) for name in names]) else 1
        with serve.both(folder, parts) as (server, base):
            if asked.only is not None:
                query = grammar.statement(f"{asked.seed}:{asked.only}")
                print(Asker(server.url, server.key, base).ask(query))
                return 0
            ending = Ending(asked.most, seconds=asked.seconds)
            tally = run(server, base, asked.seed, asked.first, asked.count, asked.threads, ending)
            return 1 if tally.found else 0


def found_without(asked, folder, parts, name):
    """Whether the generator finds what one workaround is for."""
    copy, began = folder / name, time.monotonic()
    shutil.copytree(folder / "data", copy / "data")
    with serve.both(copy, parts, workarounds.without(name)) as (server, base):
        ending = Ending(asked.count, seconds=asked.seconds)
        tally = run(server, base, asked.seed, asked.first, asked.count, asked.threads, ending, out=None)
    first = f", the first is {tally.found[0]}" if tally.found else ""
    print(f"without {name}: {len(tally.found)} of {tally.asked} statements differ{first};"
          f" {time.monotonic() - began:.0f} s", flush=True)
    return bool(tally.found)


if __name__ == "__main__":
    sys.exit(main())
