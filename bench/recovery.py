#!/usr/bin/env python3
"""What failures cost Gapless, and how many workers a coordinator serves: real processes, real signals.

usage: recovery.py worker|frozen|leader|w6|sessions|grants [rounds]        prints one JSON line

  worker    SIGKILL of a worker that computes: until its partition begins elsewhere
  frozen    SIGSTOP of one, with a lease of 2 s: until its partition begins elsewhere
  leader    SIGKILL of the leading coordinator on etcd, with a time to live of 2 s: until the other one leads
  w6        W1 in 48 partitions on two workers; one is killed at the half and started again, as a process manager
            does. In turn with rounds in which nothing is killed
  sessions  200 workers, 10,000 partitions: from the end of a task to the begin of the next one of its worker
  grants    the same with tasks that wait for 2 s each, so that the workers leave processors for a grant's way

Inputs and environment as for peer_gapless.py, which this uses. BENCH_STORE=etcd puts the rows into an etcd.
"""
import datetime, glob, json, os, re, signal, statistics, sys, threading, time, urllib.request

import peer_gapless as gapless
from peer_gapless import COLUMNS, INPUT, PATIENCE_S, SF, W1, Cluster, free_port, output, tiny

ROUNDS = 5
LEASE_MS = 2000
TTL_S = 2
PARTITIONS = 48  # of w6
WORKERS = 200
NICE = 15  # of the workers among the sessions
WAIT_S = 2  # of a task that waits: 100 tasks end in a second then
WAITS = """job: waits
steps:
  - name: wait
    source: {{sequence: {{from: 0, to: {rows}}}}}
    partition: {{count: {rows}}}
    transform: {{command: {{run: [sh, -c, "sleep {seconds}; exec cat"]}}}}
    sink: discard
"""
TASKS = {"GAPLESS_LOG_LEVEL": "info,gapless_worker::runner=debug", "GAPLESS_LOG_FORMAT": "json"}


def etl(count):
    """W1 with its output in a new folder, and that folder."""
    folder = output("recovery")
    return W1.format(input=INPUT, columns=COLUMNS, width=6_000_000 * SF // 8, output=folder, count=count)


def told(cluster):
    """What the workers' slots have said: time, worker, message, stage, partition, the number of the chunk, run."""
    lines = []
    for path in glob.glob(f"{cluster.folder}/worker-*.log"):
        with open(path) as log:
            for line in log:
                # The last line of a killed worker may be cut.
                if '"span"' not in line or not line.endswith("}\n"):
                    continue
                entry = json.loads(line)
                span = entry["span"]
                at = datetime.datetime.fromisoformat(entry["timestamp"].replace("Z", "+00:00")).timestamp()
                lines.append((at, span["worker"], entry["message"], span["stage"], span["partition"], entry.get("seq"), span["run"]))
    return sorted(lines)


def until(what, look):
    end = time.perf_counter() + PATIENCE_S
    while True:
        found = look()
        if found:
            return found
        if time.perf_counter() > end:
            sys.exit(f"waited in vain for {what}; BENCH_LOG=<file> keeps what the processes said")
        time.sleep(0.005)


def begins(cluster, stage="execute"):
    return [line for line in told(cluster) if line[2] == "the attempt begins" and line[3] == stage]


class Submitted(threading.Thread):
    """A job under way; `run` is its end."""

    def __init__(self, cluster, job):
        super().__init__()
        self.cluster, self.job, self.run_ended = cluster, job, None
        self.start()

    def run(self):
        self.run_ended, _ = self.cluster.do(self.job)

    def end(self):
        self.join()
        if self.run_ended is None:
            sys.exit("the run did not complete")
        return self.run_ended


def lose_a_worker(sign):
    """Two partitions on three workers: one of the two that compute is lost; until the third has its partition."""
    with Cluster(workers=3, **TASKS) as cluster:
        job = Submitted(cluster, etl(2))
        first = until("two partitions to begin", lambda: (lambda b: b if len(b) == 2 else None)(begins(cluster)))[0]
        time.sleep(0.3)  # well into its partition
        victim = cluster.workers[first[1]]
        lost = time.time()
        victim.send_signal(sign)
        again = until("the partition to begin again",
                      lambda: [b for b in begins(cluster) if b[4] == first[4] and b[0] > lost])[0]
        if again[1] == first[1]:
            sys.exit("the partition began on the lost worker")
        victim.send_signal(signal.SIGCONT)
        job.end()
        takeovers = sum(step["takeovers"] for step in cluster.view["steps"])
        if takeovers != 1:
            sys.exit(f"{takeovers} take-overs, where one worker was lost")
        return again[0] - lost


def worker(rounds):
    seconds = [lose_a_worker(signal.SIGKILL) for _ in range(rounds)]
    tell("worker", rounds, seconds)


def frozen(rounds):
    gapless.LEASE_MS, gapless.HEARTBEAT_MS = LEASE_MS, LEASE_MS // 5
    seconds = [lose_a_worker(signal.SIGSTOP) for _ in range(rounds)]
    tell("frozen", rounds, seconds, lease_s=LEASE_MS / 1000)


def leader(rounds):
    """Two coordinators on an etcd of one member; the one that leads is killed in the middle of a run."""
    gapless.STORE = "etcd"
    seconds, again = [], 0
    for _ in range(rounds):
        with Cluster(leader_ttl=TTL_S, standbys=1, **TASKS) as cluster:
            job = Submitted(cluster, etl(PARTITIONS))
            until("partitions to be committed", lambda: sum(line[2].endswith("last commit") for line in told(cluster)) >= 8)
            standby = cluster.coordinators[1]
            lost = time.perf_counter()
            cluster.coordinators[0].process.kill()
            until("the standby to lead", lambda: cluster.leads(standby.endpoint))
            seconds.append(time.perf_counter() - lost)
            job.end()
            again += sum(step["takeovers"] for step in cluster.view["steps"])
    tell("leader", rounds, seconds, leader_ttl_s=TTL_S, takeovers=again)


def etl_round(kill):
    """One round of w6: its seconds, chunks that were made twice, and until the killed worker's partition began anew."""
    with Cluster(workers=2, **TASKS) as cluster:
        job = Submitted(cluster, etl(PARTITIONS))
        lost = None
        if kill:
            until("half of the partitions",
                  lambda: sum(line[2].endswith("last commit") for line in told(cluster)) >= PARTITIONS // 2)
            victim = cluster.workers["worker-1"]
            held = [line for line in begins(cluster) if line[1] == "worker-1"][-1]
            lost = time.time()
            victim.kill()
            victim.wait()
            cluster.add_worker("worker-1")  # a process manager would
        seconds = job.end().seconds
        chunks = [(line[4], line[5]) for line in told(cluster) if line[2] == "a chunk is durable" and line[3] == "execute"]
        view = cluster.view["steps"][0]
        if view["counters"]["read"] != view["output"]["source_rows"]:
            sys.exit("a record was counted twice, or not at all")
        elsewhere = [b[0] - lost for b in begins(cluster) if lost and b[4] == held[4] and b[0] > lost]
        return seconds, len(chunks) - len(set(chunks)), elsewhere


def w6(rounds):
    killed, whole, twice, elsewhere = [], [], 0, []
    for _ in range(rounds):
        seconds, _, _ = etl_round(kill=False)
        whole.append(seconds)
        seconds, again, begun = etl_round(kill=True)
        killed.append(seconds)
        twice += again
        elsewhere += begun[:1]
    base, with_kill = statistics.median(whole), statistics.median(killed)
    print(json.dumps({"figure": "w6", "rounds": rounds, "median_s": round(base, 3), "killed_median_s": round(with_kill, 3),
                      "more": round(with_kill / base - 1, 3), "all_s": rounded(whole), "killed_s": rounded(killed),
                      "chunks_made_again": twice,
                      "reassigned_s": round(statistics.median(elsewhere), 3) if elsewhere else None}), flush=True)


def turns(port):
    """How many turns of the leader's loop took at most so many seconds, by the histogram of its metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as answer:
        text = answer.read().decode()
    buckets = re.findall(r'^gapless_batch_duration_seconds_bucket\{le="([^"]+)"\} (\d+)', text, re.M)
    return {float(most): int(count) for most, count in buckets}


def gaps_of_workers(figure, rounds, job, allow=()):
    """Each worker has one slot. What its slot waits is the commit's way to the leader, a durable batch, and the
    grant's way back, wherever nothing was granted ahead; and its share of the processors. The coordinator's part is
    a turn of its loop: from the first event it takes to the last grant it sends. It goes before the workers here, as
    on a machine of its own."""
    gaps, seconds, taken = [], [], {}
    for _ in range(rounds):
        port = free_port()
        more = ["--metrics-listen", f"127.0.0.1:{port}"]
        with Cluster(workers=WORKERS, more=more, worker_more=allow, nice=NICE, **TASKS) as cluster:
            # So that no worker plans the step while others wait for a processor.
            cluster.do(tiny("warm", 1, 4 * WORKERS), "number=0")
            before = turns(port)
            run, _ = cluster.do(*job)
            seconds.append(run.seconds)
            for most, count in turns(port).items():
                taken[most] = taken.get(most, 0) + count - before[most]
            ended = {}
            for at, name, message, stage, _, _, of in told(cluster):
                # Between the two jobs nobody had anything to grant.
                if stage != "execute" or of != cluster.view["run"]:
                    continue
                if message == "the attempt ended with its last commit":
                    ended[name] = at
                elif message == "the attempt begins" and name in ended:
                    gaps.append(at - ended.pop(name))
    gaps.sort()
    at = lambda part: round(gaps[min(len(gaps) - 1, int(len(gaps) * part))] * 1000, 2)
    print(json.dumps({"figure": figure, "rounds": rounds, "workers": WORKERS, "partitions": gapless.TINY_PARTITIONS,
                      "median_s": round(statistics.median(seconds), 3), "grants": len(gaps), "p50_ms": at(0.5), "p99_ms": at(0.99),
                      "turns": taken[float("inf")], "turn_p99_at_most_ms": 1000 * min(
                          most for most, count in taken.items() if count >= 0.99 * taken[float("inf")])}),
          flush=True)


def sessions(rounds):
    """All workers compute at once, on the processors that the grants need too."""
    gaps_of_workers("sessions", rounds, (tiny("tiny", 1, gapless.TINY_PARTITIONS), "number=0"))


def grants(rounds):
    """All workers are busy, and few of them with computing, as where each has a processor of its own."""
    job = WAITS.format(rows=gapless.TINY_PARTITIONS, seconds=WAIT_S)
    gaps_of_workers("grants", rounds, (job,), allow=["--allow-command"])


def rounded(seconds):
    return [round(value, 3) for value in seconds]


def tell(figure, rounds, seconds, **more):
    print(json.dumps({"figure": figure, "rounds": rounds, "median_s": round(statistics.median(seconds), 3), "all_s": rounded(seconds),
                      **more}), flush=True)


if __name__ == "__main__":
    figures = {"worker": worker, "frozen": frozen, "leader": leader, "w6": w6, "sessions": sessions, "grants": grants}
    if len(sys.argv) not in (2, 3) or sys.argv[1] not in figures:
        sys.exit(__doc__)
    figures[sys.argv[1]](int(sys.argv[2]) if sys.argv[2:] else ROUNDS)
