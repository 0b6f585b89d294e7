"""A small client of Gapless: hands over a job, follows it, reads what it published.

It speaks the gRPC API of proto/gapless/v1 through stubs that `./generate` makes. Whatever the program
`gapless` does to runs can be done so, in any language with gRPC.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Mapping, Sequence

import grpc
from gapless.v1 import cluster_pb2, cluster_pb2_grpc, jobs_pb2, jobs_pb2_grpc

# A coordinator that does not take a connection for so long is taken for away, in seconds.
CONNECT_SECONDS = 3.0

# A call waits for one store transaction; this is a hundred times what that takes.
CALL_SECONDS = 30.0

# States in which nothing more happens to a run by itself.
ENDED = (
    jobs_pb2.RUN_STATE_STOPPED,
    jobs_pb2.RUN_STATE_CANCELLED,
    jobs_pb2.RUN_STATE_COMPLETED,
    jobs_pb2.RUN_STATE_FAILED,
)


class Unreachable(Exception):
    """No coordinator answers."""


class JobRefused(Exception):
    """The job file, its parameters or its plan cannot be; the message has a line for each fault."""


class RunExists(Exception):
    """The same job with the same identifying parameters is running or complete."""

    def __init__(self, run: str, message: str):
        super().__init__(message)
        self.run = run


@dataclass(frozen=True)
class Submitted:
    run: str
    # Whether a stopped or failed run goes on, rather than a new one.
    resumed: bool


class Client:
    """A line to the first coordinator that answers. Use it in a `with` statement."""

    def __init__(self, endpoints: Sequence[str] = ("127.0.0.1:7070",)):
        failures = []
        for endpoint in endpoints:
            channel = grpc.insecure_channel(endpoint.removeprefix("http://"))
            try:
                cluster = cluster_pb2_grpc.ClusterStub(channel)
                cluster.GetCluster(cluster_pb2.GetClusterRequest(), timeout=CONNECT_SECONDS)
            except grpc.RpcError as error:
                failures.append(f"{endpoint}: {error.details()}")
                channel.close()
                continue
            self._channel = channel
            self._jobs = jobs_pb2_grpc.JobsStub(channel)
            self._cluster = cluster
            return
        raise Unreachable("no coordinator answers: " + "; ".join(failures))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_) -> None:
        self._channel.close()

    def submit(self, job_file: Path, parameters: Mapping[str, str] = {}) -> Submitted:
        """Makes a run of a job file, or goes on with one that was stopped or has failed."""
        job_file = Path(job_file).absolute()
        request = jobs_pb2.SubmitRequest(
            job_text=job_file.read_text(encoding="utf-8"),
            file_name=str(job_file),
            parameters=dict(parameters),
            # Relative paths of the job begin here, on every worker.
            base_dir=str(job_file.parent),
        )
        try:
            answer = self._jobs.Submit(request, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
                raise JobRefused(error.details()) from None
            if error.code() == grpc.StatusCode.ALREADY_EXISTS:
                named = dict(error.trailing_metadata() or ())
                raise RunExists(named.get("gapless-run", ""), error.details()) from None
            raise
        return Submitted(answer.run, answer.resumed)

    def get(self, run: str) -> jobs_pb2.Run:
        """A run by its id, a unique beginning of it, or its job's name."""
        return self._jobs.GetRun(jobs_pb2.GetRunRequest(run=run), timeout=CALL_SECONDS)

    def watch(self, run: str) -> Iterator[jobs_pb2.Run]:
        """The run as it is now, then at each change until it has ended.

        Goes on when the connection breaks and a coordinator is there again: the run does not depend on who
        watches it.
        """
        while True:
            try:
                for state in self._jobs.WatchRun(jobs_pb2.GetRunRequest(run=run), wait_for_ready=True):
                    yield state
                    if state.state in ENDED:
                        return
            except grpc.RpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                    raise

    def wait(self, run: str) -> jobs_pb2.Run:
        """Waits for the end of a run."""
        *_, last = self.watch(run)
        return last

    def events(self, run: str, follow: bool = False) -> Iterator[jobs_pb2.RunEvent]:
        """What happened to a run, oldest first; with `follow`, until it has ended."""
        return self._jobs.ListEvents(jobs_pb2.ListEventsRequest(run=run, follow=follow))

    def cancel(self, run: str) -> jobs_pb2.Run:
        """Ends a run; what it staged is removed."""
        return self._jobs.CancelRun(jobs_pb2.CancelRunRequest(run=run), timeout=CALL_SECONDS)


def read_csv(run: jobs_pb2.Run, step: str) -> Iterator[dict]:
    """The rows that a step of a completed run published as CSV, file by file.

    Reads the folder itself, so it must be reachable from here.
    """
    for file in data_files(run, step):
        with open(file, newline="", encoding="utf-8") as text:
            yield from csv.DictReader(text)


def data_files(run: jobs_pb2.Run, step: str) -> list:
    """The data files of a published output; what lies in `_gapless` are its certificate and rejects."""
    output = Path(_step(run, step).output)
    files = (path for path in output.rglob("*") if path.is_file())
    return sorted(path for path in files if "_gapless" not in path.relative_to(output).parts)


def certificate(run: jobs_pb2.Run, step: str) -> dict:
    """The coverage certificate of a published step."""
    return json.loads(Path(_step(run, step).certificate).read_text(encoding="utf-8"))


def _step(run: jobs_pb2.Run, name: str) -> jobs_pb2.StepStatus:
    for step in run.steps:
        if step.name == name:
            if not step.output:
                raise LookupError(f"step {name} of run {run.id} is not published")
            return step
    raise LookupError(f"run {run.id} has no step {name}")
