"""Runs statements against a server of this build, in a fresh folder."""

import argparse
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import conftest

from . import grammar, rows, serve
from .compare import Asker
from .run import run


def main():
    parser = argparse.ArgumentParser(prog="differential")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--most", type=int, default=5, help="differences of a thread, after which it ends")
    parser.add_argument("--seconds", type=int, help="stops after that time")
    parser.add_argument("--only", type=int, help="asks one statement and shows both answers")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        parts = rows.logs()
        serve.import_files(conftest.BINARY, folder, parts)
        server = conftest.Server(folder, **serve.QUIET)
        try:
            base = serve.fill(server, parts)
            if asked.only is not None:
                query = grammar.statement(f"{asked.seed}:{asked.only}")
                print(Asker(server.url, server.key, base).ask(query))
                return 0
            tally = run(server, base, asked.seed, asked.first, asked.count, asked.threads, asked.most, asked.seconds)
            return 1 if tally.found else 0
        finally:
            server.stop()


if __name__ == "__main__":
    sys.exit(main())
