"""A run on a Ray cluster over S3 that loses a worker and a node, against a run of one process.

    python benchmarks/cluster.py FOLDER [--pictures 200] [--model vdvae-sr-x4-tiny]

Needs vdsr-cli[ray,s3] and moto[server]. Starts a local S3 server and two Ray nodes of one CPU each,
and puts small pictures cut from examples/photo.png into a bucket. After a third of the pictures one
worker process is killed with SIGKILL, after two thirds the whole second node. Checked: every output
is in the bucket exactly once, with the bytes that one process makes of the same pictures, and has
one line in the manifest. Everything that was started is ended. Reads /proc, so Linux only.

Ray listens on every address of a machine. To keep it to itself, start this without a network:

    unshare -rn sh -c 'ip link set lo up && python benchmarks/cluster.py FOLDER'
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import boto3
from common import EXAMPLE, argument_parser
from PIL import Image

BUCKET = "pictures"
S3_PORT = 5563
CLUSTER = "127.0.0.1:6397"
TOOLS = Path(sys.executable).parent
RAY_START = [
    "start",
    "--num-cpus=1",
    "--object-store-memory=200000000",
    "--disable-usage-stats",
    "--block",
]


def fill(folder: Path, pictures: int) -> None:
    """Small pictures, no two alike."""
    folder.mkdir(parents=True)
    with Image.open(EXAMPLE) as opened:
        photo = opened.convert("RGB")
    for index in range(pictures):
        left, top = 7 * index % (photo.width - 24), 11 * index % (photo.height - 24)
        photo.crop((left, top, left + 24, top + 20)).save(folder / f"{index:04d}.png")


def children(pid: int) -> list[int]:
    """All processes below one, itself first."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [pid]
    for parent in found:
        found += [child for child, above in parents.items() if above == parent]
    return found


def kill_tree(pid: int) -> None:
    """Ends a process and all below it, which may start no others meanwhile."""
    for each in children(pid):
        try:
            os.kill(each, signal.SIGKILL)
        except ProcessLookupError:
            continue


@contextmanager
def started(log: Path, *command: object) -> Iterator[subprocess.Popen[bytes]]:
    """A service while the body runs."""
    with log.open("wb") as output:
        process = subprocess.Popen(list(map(str, command)), stdout=output, stderr=output)
    try:
        yield process
    finally:
        kill_tree(process.pid)
        process.wait()


def wait_for(ready: str, log: Path) -> None:
    """Waits until a service says that it is ready."""
    for _ in range(600):
        if ready in log.read_text():
            return
        time.sleep(0.5)
    sys.exit(f"{log.read_text()}\nnot ready: {log}")


def vdsr(*arguments: object) -> list[str]:
    """The command line of a run."""
    return [sys.executable, "-m", "vdsr_cli", "upscale", *map(str, arguments)]


def workers_of(node: int) -> list[int]:
    """The processes of a node that are making a picture right now."""
    found = []
    for pid in children(node):
        with suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::_upscale"):
                found.append(pid)
    return found


def run_on_cluster(options: argparse.Namespace, first: int, second: int) -> list[dict[str, object]]:
    """The run, losing a worker of the first node and the second node; its lines of --json."""
    command = vdsr(
        "-r", f"s3://{BUCKET}/in", "-o", f"s3://{BUCKET}/out", "--model", options.model,
        "--engine", "ray", "--ray-address", CLUSTER,
        "--manifest", options.folder / "manifest.jsonl", "--json", "--overwrite",
    )  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    outcomes = []
    for line in process.stdout:
        outcomes.append(json.loads(line))
        if len(outcomes) == options.pictures // 3:
            while not (victims := workers_of(first)):
                if process.poll() is not None:
                    sys.exit("the run ended before the first node had a picture in work again")
            os.kill(victims[0], signal.SIGKILL)
            print(
                f"after {len(outcomes)}: worker {victims[0]} of the first node killed", flush=True
            )
        if len(outcomes) == options.pictures * 2 // 3:
            print(f"after {len(outcomes)}: second node killed, {len(children(second))} processes")
            sys.stdout.flush()
            kill_tree(second)
    print(f"exit code {process.wait()}")
    return outcomes


def check(options: argparse.Namespace, store: "boto3.client") -> None:
    """Refuses a missing, doubled or different output, and a missing or doubled line."""
    pages = store.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="out/")
    keys = [entry["Key"] for page in pages for entry in page["Contents"]]
    single = {path.name: path.read_bytes() for path in (options.folder / "single").glob("*.png")}
    assert sorted(keys) == sorted(f"out/{name}" for name in single), "other outputs than expected"
    assert len(keys) == options.pictures
    for name, content in single.items():
        stored = store.get_object(Bucket=BUCKET, Key=f"out/{name}")["Body"].read()
        assert stored == content, f"{name} differs"
    lines = (options.folder / "manifest.jsonl").read_text().splitlines()
    records = {json.loads(line)["output"]: json.loads(line) for line in lines}
    assert len(lines) == len(records) == options.pictures
    for name, content in single.items():
        sha256 = records[f"s3://{BUCKET}/out/{name}"]["sha256"]
        assert sha256 == hashlib.sha256(content).hexdigest()
    print(f"{len(keys)} outputs, each once, byte for byte those of one process; {len(lines)} lines")


def main() -> None:
    """Parses, starts, runs, checks, ends."""
    parser = argument_parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--model", default="vdvae-sr-x4-tiny")
    options = parser.parse_args()
    folder: Path = options.folder
    if not (folder / "in").exists():
        fill(folder / "in", options.pictures)
    os.environ.update(
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{S3_PORT}",
        AWS_ACCESS_KEY_ID="none",
        AWS_SECRET_ACCESS_KEY="none",
        AWS_DEFAULT_REGION="us-east-1",
        RAY_worker_niceness="0",
        RAY_raylet_start_wait_time_s="300",  # Of a busy machine.
    )
    single = vdsr(
        "-r",
        folder / "in",
        "-o",
        folder / "single",
        "--model",
        options.model,
        "-q",
        "--skip-existing",
    )
    subprocess.run(single, check=True)
    print(f"{options.pictures} pictures made by one process", flush=True)
    with ExitStack() as services:
        logs = {name: folder / f"{name}.log" for name in ("s3", "head", "node")}
        s3 = [TOOLS / "moto_server", "-H", "127.0.0.1", "-p", S3_PORT]
        services.enter_context(started(logs["s3"], *s3))
        wait_for("Running on", logs["s3"])
        store = boto3.client("s3")
        store.create_bucket(Bucket=BUCKET)
        for path in sorted((folder / "in").iterdir()):
            store.upload_file(str(path), BUCKET, f"in/{path.name}")
        ray = [TOOLS / "ray", *RAY_START]
        head = [*ray, "--head", f"--port={CLUSTER.split(':')[1]}", "--include-dashboard=false"]
        first = services.enter_context(started(logs["head"], *head))
        wait_for("Ray runtime started", logs["head"])
        second = services.enter_context(started(logs["node"], *ray, f"--address={CLUSTER}"))
        wait_for("Ray runtime started", logs["node"])
        print("an S3 server and two Ray nodes are up", flush=True)
        begun = time.perf_counter()
        outcomes = run_on_cluster(options, first.pid, second.pid)
        print(f"{len(outcomes)} outcomes in {time.perf_counter() - begun:.0f} s")
        check(options, store)


if __name__ == "__main__":
    main()
