"""What a program as a transform costs: rows a second of three columns through a pass-through, over Arrow IPC.

    python3 bench/command.py [ROWS] [N]            # default 20,000,000 rows, 5 runs

Two steps on `gapless run` with 2 slots: one makes ROWS rows of (id int64, price float64, quantity int64) as Parquet,
one passes them through the program and counts them. The time is that of the second step, from its first partition to its
publication, and holds reading the Parquet files. Programs: `cat`, and a loop of pyarrow where this Python has it. The
step without a program stands beside them. Prints a line of JSON for each; GAPLESS_BIN names the binary.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

PYARROW = """import sys, pyarrow as pa
with pa.ipc.open_stream(sys.stdin.buffer) as source:
    with pa.ipc.new_stream(sys.stdout.buffer, source.schema) as sink:
        for batch in source: sink.write_batch(batch)
"""


def job(rows, transform):
    steps = [
        {
            "name": "make",
            "source": {"sequence": {"from": 0, "to": rows}},
            "transform": {
                "sql": "SELECT n AS id, CAST(n % 1000 AS DOUBLE) / 8 AS price, n % 7 AS quantity FROM input"
            },
            "sink": {"parquet": {"path": "out/make"}},
        },
        {"name": "pass", "source": {"step": "make"}, "sink": "discard"},
    ]
    if transform:
        steps[1]["transform"] = {"command": transform}
    return json.dumps({"job": "command", "steps": steps})


def seconds(events):
    """From the begin of the second step to its publication, as the run's history tells to the microsecond."""
    at = [event["at_micros"] for event in events if event.get("step") == "pass" and event["kind"] in ("stage", "published")]
    return (at[-1] - at[0]) / 1e6


def once(binary, rows, transform):
    folder = tempfile.mkdtemp(prefix="gapless-command-", dir=os.environ.get("BENCH_OUT"))
    try:
        with open(os.path.join(folder, "job.yaml"), "w") as file:
            file.write(job(rows, transform))
        done = subprocess.run(
            [binary, "run", "job.yaml", "--slots", "2", "-o", "json"], cwd=folder, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(done.stderr)
        step = json.loads(done.stdout)["steps"][1]
        assert step["counters"]["written"] == rows, step
        logs = [binary, "logs", "command", "--state", ".gapless", "-o", "json"]
        told = subprocess.run(logs, cwd=folder, capture_output=True, text=True, check=True)
        return seconds([json.loads(line) for line in told.stdout.splitlines()])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main():
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000_000
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    binary = os.environ.get("GAPLESS_BIN", "target/release/gapless")
    binary = os.path.abspath(binary) if os.path.exists(binary) else shutil.which("gapless")
    programs = {"none": None, "cat": {"run": ["cat"]}}
    try:
        import pyarrow  # noqa: F401

        programs["pyarrow"] = {"run": [sys.executable, "-c", PYARROW]}
    except ImportError:
        print("pyarrow is not there: not measured", file=sys.stderr)
    for name, transform in programs.items():
        times = [once(binary, rows, transform) for _ in range(count)]
        median = statistics.median(times)
        line = {"program": name, "rows": rows, "seconds": times, "median": median, "rows_per_s": round(rows / median)}
        print(json.dumps(line), flush=True)


main()
