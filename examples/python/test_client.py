"""The client against a real coordinator and a real worker. `./test` prepares what it needs and starts it.

GAPLESS names the program.
"""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import gapless_client
from gapless.v1 import jobs_pb2
from gapless_client import Client, JobRefused, RunExists, Unreachable

ROWS = 5000

JOB = """\
job: sales
parameters:
  day: {type: date}
steps:
  - name: load
    source: {csv: {path: "in/*.csv", columns: {id: int64, shop: string, cents: int64}}}
    partition: {key_range: {column: id}, count: 4}
    check: [{name: positive, that: "cents >= 0"}]
    sink: {csv: {path: "out/load/${param.day}"}}
  - name: by-shop
    after: [load]
    source: {step: load}
    transform: {sql: "SELECT shop, count(*) AS n, sum(cents) AS cents FROM input GROUP BY shop"}
    sink: {csv: {path: "out/by-shop/${param.day}", files: 1}}
"""


class ClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.root = Path(cls.folder.name)
        (cls.root / "in").mkdir()
        (cls.root / "job.yaml").write_text(JOB)
        cls.sales = {}
        lines = ["id,shop,cents"]
        for id in range(ROWS):
            shop, cents = f"shop-{id * 7 % 13}", id * 31 % 997
            n, total = cls.sales.get(shop, (0, 0))
            cls.sales[shop] = (n + 1, total + cents)
            lines.append(f"{id},{shop},{cents}")
        (cls.root / "in" / "sales.csv").write_text("\n".join(lines) + "\n")
        coordinator = cls.start("coordinator", "--listen", "127.0.0.1:0", "--state", "state", "--scratch", "scratch")
        cls.endpoint = coordinator.stdout.readline().decode().strip()
        cls.start("worker", "--endpoint", cls.endpoint, "--slots", "2", "--name", "w1")

    @classmethod
    def start(cls, *arguments):
        log = open(cls.root / f"{arguments[0]}.log", "wb")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GAPLESS")}
        process = subprocess.Popen(
            [os.environ["GAPLESS"], *arguments], cwd=cls.root, stdout=subprocess.PIPE, stderr=log, env=environment
        )

        def end():
            process.terminate()
            process.wait(timeout=30)
            process.stdout.close()
            log.close()

        cls.addClassCleanup(end)
        return process

    def setUp(self):
        self.client = self.enterContext(Client([self.endpoint]))

    def test_a_job_is_submitted_watched_and_read(self):
        run = self.client.submit(self.root / "job.yaml", {"day": "2026-11-20"}).run
        states = list(self.client.watch(run))
        ended = states[-1]
        self.assertEqual(ended.state, jobs_pb2.RUN_STATE_COMPLETED, ended.error)
        self.assertEqual(len({state.id for state in states}), 1)
        loaded = list(gapless_client.read_csv(ended, "load"))
        self.assertEqual(sorted(int(row["id"]) for row in loaded), list(range(ROWS)), "each record once")
        by_shop = {row["shop"]: (int(row["n"]), int(row["cents"])) for row in gapless_client.read_csv(ended, "by-shop")}
        self.assertEqual(by_shop, self.sales)
        self.assertTrue(gapless_client.certificate(ended, "load"))

        kinds = [event.kind for event in self.client.events(run)]
        self.assertEqual((kinds[0], kinds[-1]), ("submitted", "completed"))
        self.assertEqual(kinds.count("published"), 2)

        with self.assertRaises(RunExists) as again:
            self.client.submit(self.root / "job.yaml", {"day": "2026-11-20"})
        self.assertEqual(again.exception.run, run)

    def test_a_job_that_cannot_be_is_refused_with_line_and_remedy(self):
        wrong = self.root / "wrong.yaml"
        wrong.write_text(JOB.replace("sink:", "sunk:", 1))
        with self.assertRaises(JobRefused) as refused:
            self.client.submit(wrong, {"day": "2026-11-20"})
        self.assertIn("wrong.yaml:9:", str(refused.exception))
        self.assertIn("did you mean `sink`?", str(refused.exception))

    def test_the_example_prints_rows_and_ends_with_the_program_s_codes(self):
        program = [sys.executable, Path(__file__).with_name("submit_job.py")]
        arguments = ["job.yaml", "-p", "day=2026-11-21", "--endpoint", self.endpoint, "--rows", "3"]
        done = subprocess.run(program + arguments, cwd=self.root, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(done.stdout.splitlines()), 3)
        again = subprocess.run(program + arguments, cwd=self.root, capture_output=True, text=True)
        self.assertEqual(again.returncode, 7, again.stderr)

    def test_nobody_there_is_told_in_words(self):
        # Port 9 on loopback: nothing listens there.
        with self.assertRaises(Unreachable) as error:
            Client(["127.0.0.1:9"])
        self.assertIn("127.0.0.1:9", str(error.exception))


if __name__ == "__main__":
    unittest.main()
