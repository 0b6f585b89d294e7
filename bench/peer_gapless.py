#!/usr/bin/env python3
"""Gapless as one peer of a benchmark: a coordinator and one-slot workers on loopback, everything durable.

usage: peer_gapless.py w1|w2|w3|w5|commits|startup|memory|share  prints one JSON line

Needs the Python standard library only; `duckdb` or `pyarrow` where there is one, to write the dead letters of
w1 as Parquet. Reads nothing beside itself, so it can be copied or linked to where other peers lie.

environment: GAPLESS_BIN  the binary (default: ../target/release/gapless, then the one on PATH)
             BENCH_DATA, BENCH_SF, BENCH_OUT, BENCH_CPUS  inputs, scale factor, outputs, number of workers
             BENCH_STORE  where the coordinator keeps its rows: embedded (default), or etcd, one member of its own
             BENCH_LOG  the logs of all processes are appended to this file
"""
import datetime, glob, json, os, re, shutil, signal, socket, statistics, struct, subprocess, sys, tempfile, time
import urllib.request

DATA = os.path.abspath(os.environ.get("BENCH_DATA", "bench-data"))
SF = int(os.environ.get("BENCH_SF", "1"))
CPUS = int(os.environ.get("BENCH_CPUS", "2"))
OUT = os.path.abspath(os.environ.get("BENCH_OUT", DATA + "/out"))
LOG = os.environ.get("BENCH_LOG", os.devnull)
STORE = os.environ.get("BENCH_STORE", "embedded")
INPUT = f"{DATA}/sf{SF}"

LEASE_MS, HEARTBEAT_MS = 5000, 1000  # the defaults of the product, said so that a change of them shows
PATIENCE_S = 20  # for a process to begin or to end
TINY_PARTITIONS = 10_000
CHAIN, CHAINS = 60, 5  # one-partition steps in a chain, and how many such jobs
STARTS = 5
NOOPS = 30
FEW, MANY, TURNS = 8, 136, 5  # partitions of w1 for the cost of a commit, and runs of each in turn
SMALL, HUGE, HASHES = 16, 4000, 250_000  # partitions of a small and of a huge job, numbers hashed in each
SHARES = 7  # runs of the small job alone, and beside the huge one
REST_S = 3  # until memory is read: several heartbeats

# The columns of TPC-H lineitem, as the peers declare them.
COLUMNS = """
          l_orderkey: int64
          l_partkey: int64
          l_suppkey: int64
          l_linenumber: int32
          l_quantity: float64
          l_extendedprice: float64
          l_discount: float64
          l_tax: float64
          l_returnflag: string
          l_linestatus: string
          l_shipdate: date
          l_commitdate: date
          l_receiptdate: date
          l_shipinstruct: string
          l_shipmode: string
          l_comment: string"""

W1 = """job: bench-etl
steps:
  - name: etl
    source:
      csv:
        path: {input}/lineitem_dirty.csv
        header: true
        columns:{columns}
    partition: {{bytes: {{}}, count: {count}}}
    check:
      - {{name: positive quantity, that: "l_quantity > 0"}}
      - {{name: received after shipped, that: "l_receiptdate >= l_shipdate"}}
    transform:
      sql: >-
        SELECT *, l_extendedprice * (1 - l_discount) AS revenue,
        CAST(floor((l_orderkey - 1) / {width}) AS INT) AS pid
        FROM input WHERE l_shipdate BETWEEN DATE '1993-01-01' AND DATE '1997-12-31'
    sink:
      parquet: {{path: {output}, compression: zstd, partition_by: [pid]}}
    on_error: {{reject: {{limit: 1000000}}}}
"""

W2 = """job: bench-aggregate
steps:
  - name: aggregate
    source: {{parquet: {{path: {input}/lineitem.parquet}}}}
    partition: {{hash: {{columns: [l_partkey, l_suppkey]}}, count: {count}}}
    transform:
      sql: >-
        SELECT l_partkey, l_suppkey, count(*) AS n, sum(l_quantity) AS qty,
        sum(l_extendedprice * (1 - l_discount)) AS revenue, max(l_shipdate) AS last_ship
        FROM input GROUP BY l_partkey, l_suppkey
    sink: {{parquet: {{path: {output}, compression: zstd}}}}
"""

# The goal: eight files, each of a range of keys, in order.
W3 = """job: bench-sort
steps:
  - name: sort
    source: {{csv: {{path: {input}, header: false, quote: none, columns: {{k: string, v: string}}}}}}
    partition: {{count: {count}}}
    sort: [k]
    sink: {{csv: {{path: {output}, header: false}}}}
"""

# An identifying parameter, for jobs that are done more than once in a cluster.
NUMBERED = "parameters: {number: {type: int64}}"

TINY = """job: bench-{name}
{numbered}
steps:"""

TINY_STEP = """
  - name: s{number}
    after: [{after}]
    source: {{sequence: {{from: 0, to: {rows}}}}}
    partition: {{count: {rows}}}
    sink: {{discard: {{}}}}"""


def tiny(name, steps, rows):
    """A job that does nothing: `steps` steps in a chain, each of `rows` partitions of one number."""
    chain = (TINY_STEP.format(number=n, after=f"s{n - 1}" if n else "", rows=rows) for n in range(steps))
    return TINY.format(name=name, numbered=NUMBERED) + "".join(chain) + "\n"


def binary():
    """The binary under test."""
    here = os.path.dirname(os.path.realpath(__file__))
    named = os.environ.get("GAPLESS_BIN")
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(here, "..", "target"))
    for path in [named] if named else [os.path.join(target, "release", "gapless"), shutil.which("gapless")]:
        if path and os.access(path, os.X_OK):
            return os.path.abspath(path)
    sys.exit("no gapless binary: build it with `cargo build --release -p gapless`, or name one in GAPLESS_BIN")


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


class Grpc:
    """The least of gRPC over HTTP/2 (RFC 9113) that one unary call at a time needs. What the commands print has
    times in seconds; the messages have microseconds."""

    WINDOW = 1 << 30

    def __init__(self, endpoint):
        host, port = endpoint.removeprefix("http://").rsplit(":", 1)
        self.authority, self.stream = f"{host}:{port}", 1
        self.socket = socket.create_connection((host, int(port)), PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")
        settings = struct.pack(">HI", 4, self.WINDOW)
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, settings)
                            + frame(8, 0, 0, struct.pack(">I", self.WINDOW)))

    def call(self, method, message=b""):
        """The answer to a message, both as bytes."""
        def text(value):
            return bytes([len(value)]) + value.encode()  # shorter than 127, not Huffman coded

        # RFC 7541: entries of the static table (POST, http), then literals that are not indexed.
        head = (b"\x83\x86\x04" + text(f"/gapless.v1.{method}") + b"\x01" + text(self.authority)
                + b"\x0f\x10" + text("application/grpc") + b"\x00" + text("te") + text("trailers"))
        stream, self.stream = self.stream, self.stream + 2
        body = b"\0" + struct.pack(">I", len(message)) + message
        self.socket.sendall(frame(1, 4, stream, head) + frame(0, 1, stream, body))
        answer, ended = b"", False
        while not ended:
            start = self.file.read(9)
            if len(start) < 9:
                raise ConnectionError(f"{method}: the coordinator hung up")
            kind, flags, of = start[3], start[4], struct.unpack(">I", start[5:])[0]
            payload = self.file.read(int.from_bytes(start[:3], "big"))
            if kind in (4, 6) and not flags & 1:  # SETTINGS, PING: acknowledge
                self.socket.sendall(frame(kind, 1, 0, payload if kind == 6 else b""))
            elif of == stream:
                answer += payload if kind == 0 else b""
                ended = kind == 3 or kind in (0, 1) and flags & 1
        if len(answer) < 5:
            raise RuntimeError(f"{method} was refused")
        return answer[5:]


def fields(message):
    """The fields of a protobuf message by number, each a list of numbers or bytes."""
    at, found = 0, {}

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(message):
        tag = varint()
        if tag & 7 == 0:
            value = varint()
        else:
            size = varint() if tag & 7 == 2 else {1: 8, 5: 4}[tag & 7]
            value, at = message[at:at + size], at + size
        found.setdefault(tag >> 3, []).append(value)
    return found


class Run:
    """A run as `gapless.v1.Jobs/GetRun` tells it (proto/gapless/v1/jobs.proto)."""

    def __init__(self, message):
        run = fields(message)
        self.submitted, self.finished = run[5][0], run[6][0]
        self.seconds = (self.finished - self.submitted) / 1e6
        self.steps = [fields(step) for step in run[8]]

    def step_ends(self):
        return [step[9][0] for step in self.steps]


def free_port():
    """A port of this machine that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Coordinator:
    def __init__(self, process, endpoint):
        self.process, self.endpoint = process, endpoint


class Cluster:
    """A coordinator and workers of one slot each, with a state folder of their own; a context manager. With
    `standbys` (on etcd) there are more coordinators, and the first one leads. `nice` is of the workers."""

    def __init__(self, workers=CPUS, standbys=0, leader_ttl=None, more=(), worker_more=(), nice=0, **logging):
        os.makedirs(OUT, exist_ok=True)
        # Beside the outputs: staged files are linked into them, which needs one file system.
        self.folder = tempfile.mkdtemp(prefix=".gapless-bench-", dir=OUT)
        self.binary, self.processes, self.log = binary(), [], open(LOG, "ab")
        self.wanted, self.standbys, self.jobs, self.etcd = workers, standbys, 0, None
        self.coordinators, self.workers, self.nice = [], {}, ["nice", "-n", str(nice)] if nice else []
        self.worker_more = worker_more
        self.more = [*more, *(["--leader-ttl-s", str(leader_ttl)] if leader_ttl else [])]
        # No settings from outside but for logging: neither variables nor a configuration file.
        kept = {k: v for k, v in os.environ.items() if not k.startswith("GAPLESS_") or k.startswith("GAPLESS_LOG_")}
        self.environment = kept | {"HOME": self.folder} | logging

    def start(self, *arguments, **more):
        lower = self.nice if arguments[0] == "worker" else []
        process = subprocess.Popen([*lower, self.binary, *arguments], stdin=subprocess.DEVNULL,
                                   env=self.environment, **{"stderr": self.log, **more})
        self.processes.append(process)
        return process

    def __enter__(self):
        try:
            self.store = self.start_etcd() if STORE == "etcd" else ["--state", f"{self.folder}/state"]
            begin = time.perf_counter()
            self.add_coordinator()
            self.coordinator_s = time.perf_counter() - begin
            if self.standbys:
                self.wait("the coordinator to lead", lambda: self.leads(self.endpoint))
            for _ in range(self.standbys):
                self.add_coordinator()
            self.environment["GAPLESS_ENDPOINTS"] = ",".join(it.endpoint for it in self.coordinators)
            for number in range(self.wanted):
                self.add_worker(f"worker-{number + 1}")
            self.wait("the workers", lambda: self.present() >= self.wanted)
            self.ready_s = time.perf_counter() - begin
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait(self, what, look):
        end = time.perf_counter() + PATIENCE_S
        while not look():
            if time.perf_counter() > end:
                sys.exit(f"waited in vain for {what}; BENCH_LOG=<file> keeps what the processes said")
            time.sleep(0.002)

    def add_coordinator(self):
        process = self.start("coordinator", "--listen", "127.0.0.1:0", *self.store, "--scratch", f"{self.folder}/scratch",
                             "--lease-ms", str(LEASE_MS), "--heartbeat-ms", str(HEARTBEAT_MS), *self.more,
                             stdout=subprocess.PIPE, text=True)
        address = process.stdout.readline().strip()
        if not address:
            sys.exit("the coordinator did not start; BENCH_LOG=<file> keeps what it said")
        self.coordinators.append(Coordinator(process, address if address.startswith("http") else f"http://{address}"))

    def add_worker(self, name):
        with open(f"{self.folder}/{name}.log", "ab") as log:
            self.workers[name] = self.start("worker", "--slots", "1", "--name", name, *self.worker_more, stdout=log, stderr=log)

    @property
    def endpoint(self):
        return self.coordinators[0].endpoint

    def ask(self, method, message=b""):
        """The answer of the first coordinator that gives one."""
        for coordinator in self.coordinators:
            try:
                return Grpc(coordinator.endpoint).call(method, message)
            except (RuntimeError, OSError):
                pass
        raise RuntimeError(f"{method}: no coordinator answers")

    def leads(self, endpoint):
        try:
            Grpc(endpoint).call("Cluster/ListWorkers")
            return True
        except (RuntimeError, OSError):
            return False

    def present(self):
        """Workers that are registered; none as long as no coordinator leads."""
        try:
            return len(fields(self.ask("Cluster/ListWorkers")).get(1, []))
        except RuntimeError:
            return 0

    def start_etcd(self):
        """An etcd of one member on loopback; the arguments by which a coordinator uses it."""
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        etcd = subprocess.Popen(
            ["etcd", "--data-dir", f"{self.folder}/etcd", "--listen-client-urls", client, "--advertise-client-urls", client,
             "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.etcd = etcd
        end = time.perf_counter() + PATIENCE_S
        while True:
            try:
                with urllib.request.urlopen(client + "/health", timeout=1) as answer:
                    if b"true" in answer.read():
                        return ["--store", "etcd", "--etcd-endpoints", client, "--cluster-name", "bench"]
            except OSError:
                pass
            if etcd.poll() is not None or time.perf_counter() > end:
                sys.exit("etcd did not start; BENCH_LOG=<file> keeps what it said")
            time.sleep(0.01)

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in reversed(self.processes):
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self.etcd:
            self.etcd.kill()
            self.etcd.wait()
        for path in sorted(glob.glob(f"{self.folder}/worker-*.log")):
            with open(path, "rb") as log:
                shutil.copyfileobj(log, self.log)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def do(self, job, *parameters):
        """Submits a job, waits for its end, and returns the run; also the seconds as the client saw them."""
        self.jobs += 1
        path = f"{self.folder}/job-{self.jobs}.yaml"
        with open(path, "w") as file:
            file.write(job)
        more = [word for parameter in parameters for word in ("-p", parameter)]
        begin = time.perf_counter()
        done = subprocess.run([self.binary, "submit", path, "--wait", "-o", "json", *more], env=self.environment,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, text=True)
        seconds = time.perf_counter() - begin
        if done.returncode:
            sys.exit(f"gapless submit ended with {done.returncode}: {done.stdout[-2000:]}")
        self.view = json.loads(done.stdout)
        run = self.view["run"].encode()
        return Run(self.ask("Jobs/GetRun", b"\x0a" + bytes([len(run)]) + run)), seconds

    def memory_mib(self):
        """Resident memory of the coordinator and of the largest worker."""
        def resident(process):
            with open(f"/proc/{process.pid}/status") as status:
                return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) / 1024
        coordinator, *workers = map(resident, [self.coordinators[0].process, *self.workers.values()])
        return round(coordinator, 1), round(max(workers), 1)


def output(workload):
    """The output folder of a workload, absent: the sink makes it."""
    path = f"{OUT}/{workload}-gapless-sf{SF}"
    for old in (path, f"{OUT}/.{os.path.basename(path)}.gapless"):
        shutil.rmtree(old, ignore_errors=True)
    return path


def report(seconds, **more):
    version = subprocess.run([binary(), "--version"], stdout=subprocess.PIPE, text=True).stdout.split()[-1]
    print(json.dumps({"engine_s": round(seconds, 3), **more, "version": version}), flush=True)


def median_us(seconds):
    return round(statistics.median(seconds) * 1e6)


def parquet_writer():
    """A function that writes (line, reason) rows with a revenue of 0 as a Parquet file; `None` without a library."""
    try:
        import pyarrow, pyarrow.parquet
    except ImportError:
        return None

    def write(path, rows):
        table = pyarrow.table({"place": [r[0] for r in rows], "reason": [r[1] for r in rows],
                               "revenue": pyarrow.array([0.0] * len(rows), pyarrow.float64())})
        pyarrow.parquet.write_table(table, path, compression="zstd")
    return write


def dead_letters(folder, write):
    """Turns the quarantine of an output into the folders that the peers make: pid=-2 for records that cannot be
    parsed, pid=-1 for those that break a rule. Returns how many there are of each."""
    letters = {-2: [], -1: []}
    for path in sorted(glob.glob(f"{folder}/_gapless/rejects/*.ndjson")):
        with open(path) as file:
            for line in file:
                reject = json.loads(line)
                letters[-2 if reject["rule"] == "parse" else -1].append((f"{reject.get('line', '')}", reject["reason"]))
    for pid, rows in letters.items():
        if rows and write:
            os.makedirs(f"{folder}/pid={pid}")
            write(f"{folder}/pid={pid}/rejects.parquet", rows)
    return {pid: len(rows) for pid, rows in letters.items()}


def w1():
    """CSV, typed, checked, filtered, revenue, to zstd Parquet in 8 key ranges, and the dead letters."""
    path, write = output("w1"), parquet_writer()
    count = os.environ.get("BENCH_PARTITIONS", "auto")
    with Cluster() as cluster:
        run, client = cluster.do(W1.format(input=INPUT, columns=COLUMNS, width=6_000_000 * SF // 8, output=path, count=count))
        begin = time.perf_counter()
        letters = dead_letters(path, write)
        letters_s = time.perf_counter() - begin
        step = cluster.view["steps"][0]
    report(run.seconds + letters_s, rows=step["counters"]["read"], run_s=round(run.seconds, 3), client_s=round(client, 3),
           dead_letters_s=round(letters_s, 3), dead_letters=letters, dead_letters_as="parquet" if write else "ndjson only",
           partitions=step["partitions"]["total"])


def commits():
    """What a commit costs: w1 in few and in many partitions, in turn. A further partition has a task, a chunk with its
    files, their fsyncs and a commit of its own; what it adds to the time bounds the cost of a commit from above."""
    times, files = {FEW: [], MANY: []}, {}
    with Cluster() as cluster:
        for turn in range(TURNS):
            for count in times:
                path = output("w1")
                job = W1.format(input=INPUT, columns=COLUMNS, width=6_000_000 * SF // 8, output=path, count=count)
                run, _ = cluster.do(f"{NUMBERED}\n{job}", f"number={turn * MANY + count}")
                times[count].append(run.seconds)
                files[count] = cluster.view["steps"][0]["output"]["files"]
    few, many = (statistics.median(of) for of in times.values())
    each = (many - few) / (MANY - FEW)
    report(few, few_s=round(few, 3), many_s=round(many, 3), few_files=files[FEW], many_files=files[MANY],
           commit_ms=round(each * 1e3, 2), share=round(each * FEW / few, 4))


def w2():
    """Parquet, grouped by two keys through a durable hash exchange, to zstd Parquet."""
    path = output("w2")
    count = os.environ.get("BENCH_PARTITIONS", "auto")
    with Cluster() as cluster:
        run, client = cluster.do(W2.format(input=INPUT, output=path, count=count))
        step = cluster.view["steps"][0]
    report(run.seconds, rows=step["output"]["source_rows"], client_s=round(client, 3), groups=step["output"]["rows"])


def w3():
    """Records of 100 bytes in text, to files in the order of their keys."""
    path = output("w3")
    count = os.environ.get("BENCH_PARTITIONS", "8")
    with Cluster() as cluster:
        run, client = cluster.do(W3.format(input=f"{DATA}/records.csv", output=path, count=count))
        step = cluster.view["steps"][0]
    # Whoever compares the answers takes every file of the folder for records.
    shutil.rmtree(f"{path}/_gapless")
    report(run.seconds, rows=step["output"]["rows"], client_s=round(client, 3), files=step["output"]["files"])


def task_starts(log):
    """When each task began, and of which stage it is, by the log of a worker."""
    starts = []
    with open(log) as lines:
        for line in lines:
            entry = json.loads(line) if line.startswith("{") else {}
            if entry.get("message") == "the attempt begins":
                at = datetime.datetime.fromisoformat(entry["timestamp"].replace("Z", "+00:00"))
                starts.append((at.timestamp(), entry["span"]["stage"]))
    return starts


def w5():
    """Tasks that do nothing: 10,000 at once on all workers, then a chain of one at a time on one worker."""
    with Cluster() as cluster:
        cluster.do(tiny("warm", 1, 100), "number=0")
        run, client = cluster.do(tiny("tiny", 1, TINY_PARTITIONS), "number=0")
    with Cluster(workers=1, GAPLESS_LOG_LEVEL="info,gapless_worker::runner=debug", GAPLESS_LOG_FORMAT="json") as cluster:
        starts = []
        for number in range(CHAINS):
            chain, _ = cluster.do(tiny("chain", CHAIN, 1), f"number={number}")
        starts = task_starts(f"{cluster.folder}/worker-1.log")
    # The next task of a chain can be granted only when the one before it is committed.
    task = [after[0] - before[0] for before, after in zip(starts, starts[1:]) if before[1] == "execute"]
    ends = chain.step_ends()
    step = [(after - before) / 1e6 for before, after in zip(ends, ends[1:])]
    report(run.seconds, rows=TINY_PARTITIONS, tasks_per_s=round(TINY_PARTITIONS / run.seconds), client_s=round(client, 3),
           p50_us=median_us(task), p99_us=round(sorted(task)[len(task) * 99 // 100] * 1e6), tasks_in_turn=len(task),
           step_p50_us=median_us(step))


def startup():
    """From nothing to a cluster, from a job to its end, and a whole `gapless run`, each with a job of one empty task."""
    ready, coordinator, cold, warm, client, alone = [], [], [], [], [], []
    for _ in range(STARTS):
        with Cluster() as cluster:
            ready.append(cluster.ready_s)
            coordinator.append(cluster.coordinator_s)
            cold.append(cluster.do(tiny("noop", 1, 1), "number=0")[0].seconds)
            for number in range(NOOPS // STARTS):
                run, seconds = cluster.do(tiny("noop", 1, 1), f"number={number + 1}")
                warm.append(run.seconds)
                client.append(seconds)
    for _ in range(STARTS):
        with tempfile.TemporaryDirectory(dir=OUT) as folder:
            with open(f"{folder}/job.yaml", "w") as file:
                file.write(tiny("noop", 1, 1))
            begin = time.perf_counter()
            subprocess.run([binary(), "run", f"{folder}/job.yaml", "-p", "number=0"], check=True, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
            alone.append(time.perf_counter() - begin)
    medians = {name: round(statistics.median(of), 4) for name, of in (
        ("coordinator_s", coordinator), ("ready_s", ready), ("first_job_s", cold), ("job_s", warm), ("job_client_s", client),
        ("run_s", alone))}
    report(medians["ready_s"] + medians["first_job_s"], rows=1, **medians)


def memory():
    """Resident memory of idle processes: fresh, and after work."""
    with Cluster() as cluster:
        time.sleep(REST_S)
        coordinator, worker = cluster.memory_mib()
        begin = time.perf_counter()
        cluster.do(tiny("tiny", 1, TINY_PARTITIONS), "number=0")
        seconds = time.perf_counter() - begin
        time.sleep(REST_S)
        coordinator_after, worker_after = cluster.memory_mib()
    report(seconds, rows=TINY_PARTITIONS, coordinator_mib=coordinator, worker_mib=worker,
           coordinator_after_mib=coordinator_after, worker_after_mib=worker_after)


def hashing(name, count, more=""):
    """A job of `count` partitions that each hash HASHES numbers; a run for each number given."""
    return f"""job: {name}
{more}parameters: {{number: {{type: int64}}}}
steps:
  - name: hash
    source: {{sequence: {{from: 0, to: {count * HASHES}}}}}
    partition: {{count: {count}}}
    transform: {{sql: "SELECT n FROM input WHERE md5(CAST(n AS VARCHAR)) = 'none'"}}
    sink: discard
"""


def share():
    """A small job alone, beside a huge one of the same priority, and beside it with a higher one, in turn."""
    def small(name, number, more=""):
        return cluster.do(hashing(name, SMALL, more), f"number={number}")[0].seconds

    def gapless(*arguments):
        return subprocess.run([cluster.binary, *arguments], env=cluster.environment, check=True, stdout=subprocess.PIPE,
                              stderr=cluster.log).stdout

    def until(holds):
        while True:
            huge = json.loads(gapless("get", "huge", "-o", "json"))
            if holds(huge):
                return huge
            time.sleep(0.01)
    alone, beside, urgent = [], [], []
    with Cluster() as cluster:
        path = f"{cluster.folder}/huge.yaml"
        with open(path, "w") as file:
            file.write(hashing("huge", HUGE))
        small("warm-up", 0)
        for turn in range(SHARES):
            alone.append(small("alone", turn))
            gapless("submit", path, "-p", "number=0")
            until(lambda huge: huge["steps"][0]["partitions"]["running"] >= CPUS)
            beside.append(small("beside", turn))
            urgent.append(small("urgent", turn, "priority: 80\n"))
            gapless("stop", "huge")
            left = until(lambda huge: huge["state"] in ("stopped", "completed"))
        if left["state"] == "completed":
            sys.exit("the huge job ended before the small ones: nothing was measured")
        gapless("cancel", "huge")
    medians = {name: round(statistics.median(of), 3) for name, of in (("alone_s", alone), ("beside_s", beside), ("urgent_s", urgent))}
    report(medians["beside_s"], **medians, times=round(statistics.median(b / a for a, b in zip(alone, beside)), 2),
           urgent_times=round(statistics.median(u / a for a, u in zip(alone, urgent)), 2),
           huge_done=left["steps"][0]["partitions"]["done"], n=SHARES)


if __name__ == "__main__":
    workloads = {"w1": w1, "w2": w2, "w3": w3, "w5": w5, "commits": commits, "startup": startup, "memory": memory,
                 "share": share}
    if sys.argv[2:]:
        sys.exit(f"gapless has no variant {'.'.join(sys.argv[2:])}: commits cannot be switched off")
    if sys.argv[1:] and sys.argv[1] in workloads:
        workloads[sys.argv[1]]()
    else:
        sys.exit(__doc__)
