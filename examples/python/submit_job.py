#!/usr/bin/env python3
"""Submits a job, shows its progress and prints the first rows of its last step.

    python submit_job.py job.yaml -p day=2026-11-20 --endpoint 127.0.0.1:7070
"""

import argparse
import itertools
import sys

from gapless.v1 import jobs_pb2
from gapless_client import Client, JobRefused, RunExists, Unreachable, read_csv


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job")
    parser.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--endpoint", default="127.0.0.1:7070", help="coordinators, joined by commas")
    parser.add_argument("--rows", type=int, default=10, help="rows to print")
    arguments = parser.parse_args()
    parameters = dict(parameter.split("=", 1) for parameter in arguments.parameter)
    # The exit codes are those of the program `gapless`.
    try:
        with Client(arguments.endpoint.split(",")) as client:
            return do(client, arguments.job, parameters, arguments.rows)
    except Unreachable as error:
        print(error, file=sys.stderr)
        return 6
    except JobRefused as error:
        print(error, file=sys.stderr)
        return 3
    except RunExists as error:
        print(f"{error}: run {error.run}", file=sys.stderr)
        return 7


def do(client: Client, job: str, parameters: dict, rows: int) -> int:
    run = client.submit(job, parameters).run
    print(f"run {run}", file=sys.stderr)
    shown = None
    for state in client.watch(run):
        line = ", ".join(f"{step.name}: {step.state} {step.rows_read} rows" for step in state.steps)
        if line != shown:
            print(line, file=sys.stderr)
            shown = line
    if state.state != jobs_pb2.RUN_STATE_COMPLETED:
        print(f"the run did not complete: {state.error}", file=sys.stderr)
        return 1
    for row in itertools.islice(read_csv(state, state.steps[-1].name), rows):
        print(*row.values(), sep=",")
    return 0


if __name__ == "__main__":
    sys.exit(main())
