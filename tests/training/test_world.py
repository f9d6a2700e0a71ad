"""Two processes are one with the doubled batch."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from vdsr_cli.errors import UsageError
from vdsr_cli.training.world import World, join_world

OPTIONS = "--dtype float32 --device cpu --lr-size 8 --steps 5 --log-every 1 --val-every 0 -q"


def test_a_process_alone_has_everything():
    alone, rows = World(), torch.arange(6).view(6, 1)
    assert alone.is_first and torch.equal(alone.share(rows), rows)
    shares = [World(rank=rank, size=3).share(rows) for rank in range(3)]
    assert torch.equal(torch.cat(shares), rows)
    assert alone.any(True, torch.device("cpu")) and torch.equal(alone.mean(rows), rows)


@pytest.mark.parametrize("device", ["cuda:0", "mps"])
def test_one_device_is_none_for_several_processes(monkeypatch, device):
    assert join_world(device) == (World(), device)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="one device"):
        join_world(device)


ELBO = ("loss", "distortion_bits", "rate_bits", "mean_l1", "grad_norm")
SAMPLES = ("sample_l1", "perceptual", "generator", "discriminator", "diversity")


@pytest.mark.parametrize(
    ("phase", "figures"),
    [("", ELBO), ("--adversarial 0 --discriminator-width 8 --ramp 1", (*ELBO, *SAMPLES))],
)
def test_two_processes_give_the_curve_of_one_with_the_doubled_batch(
    tmp_path, tiny_path, vdsr, lpips_weights, phase, figures
):
    folder = lpips_weights("squeeze").parent
    rng = np.random.default_rng(0)
    rough = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8))
    rough.resize((72, 64), Image.Resampling.BICUBIC).save(tmp_path / "a.png")
    words = ["train", "vdvae-sr", str(tmp_path / "a.png"), "--from", str(tiny_path)]
    words += [*OPTIONS.split(), "--degradation", "real", *phase.split()]
    words += ["--metric-weights", str(folder)] if phase else []
    assert vdsr(*words, "--batch", 4, "--out", tmp_path / "one").code == 0
    command = [sys.executable, "-m", "vdsr_cli", *words, "--batch", "2"]
    command += ["--out", str(tmp_path / "two")]
    children = [start(command, rank) for rank in range(2)]
    for child in children:
        _, err = child.communicate(timeout=120)
        assert child.returncode == 0, err.decode()
    one, two = (read_rows(tmp_path / name / "log.jsonl") for name in ("one", "two"))
    assert len(one) == len(two) == 5
    for a, b in zip(one, two, strict=True):
        for key in figures:
            assert a[key] == pytest.approx(b[key], rel=1e-3), (a["step"], key)


def start(command: list[str], rank: int) -> "subprocess.Popen[bytes]":
    """One of two processes, as torchrun starts them."""
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(PORT)}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **place, **meeting}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


PORT = free_port()


def read_rows(path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
