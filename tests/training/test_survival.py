"""A run outlives what kills it: SIGKILL, a full disk, bad gradients, the end of its minutes."""

import contextlib
import errno
import json
import math
import os
import random
import signal
import stat
import subprocess
import sys
import time
import tracemalloc

import pytest
import torch

from vdsr_cli.errors import DeviceError, OutputError, UsageError, WeightsError
from vdsr_cli.training import run_folder
from vdsr_cli.training.config import RunPlan, TrainConfig
from vdsr_cli.training.curves import save_curves
from vdsr_cli.training.data import PictureStore
from vdsr_cli.training.loop import Trainer
from vdsr_cli.weights import runs

CONFIG = TrainConfig(steps=6, batch=2, lr_size=8, warmup=2, elbo_from=1, learning_rate=2e-3)
KILLS, STEPS = 4, 40
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
ZYGOTE = """
import os, sys, torch
torch.optim.AdamW([torch.zeros(1)])  # imports what every run would else wait for
import vdsr_cli.cli.train_progress, vdsr_cli.services.train
from vdsr_cli.cli.app import main
sys.argv[0] = "vdsr"
for _ in sys.stdin:
    process = os.fork()
    if not process:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        main()
        os._exit(0)
    print(process, flush=True)
    print(os.waitpid(process, 0)[1], flush=True)
"""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def trainer(pictures, tmp_path, make_tiny):
    def make(name: str = "run", **options) -> Trainer:
        store = PictureStore([pictures / "a.png"], scale=4, min_lr_size=8)
        config = TrainConfig(**{"steps": 6, "batch": 2, "lr_size": 8, "warmup": 2, **options})
        return Trainer(
            make_tiny().requires_grad_(True).train(),
            store,
            config,
            tmp_path / name,
            device=torch.device("cpu"),
            compute=torch.float32,
            keep_previous=True,
        )

    return make


@pytest.fixture
def lives():
    """``lives(words)``: starts `vdsr` and returns its process number; one interpreter is forked
    for all of them, so that each is at work at once. ``lives.wait()`` gives its wait status."""
    zygotes = []

    class Lives:
        def __call__(self, words) -> int:
            if not zygotes:
                command = [sys.executable, "-c", ZYGOTE, *map(str, words)]
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
                zygotes.append(subprocess.Popen(command, env=ONE_THREAD, text=True, **pipes))
            zygotes[0].stdin.write("go\n")
            zygotes[0].stdin.flush()
            return int(zygotes[0].stdout.readline())

        def wait(self) -> int:
            return int(zygotes[0].stdout.readline())

    yield Lives()
    for zygote in zygotes:
        zygote.stdin.close()
        zygote.wait()
        zygote.stdout.close()


def test_a_run_killed_at_random_moments_ends_as_one_that_was_not(
    pictures, tiny_path, tmp_path, vdsr, lives
):
    words = ["train", "vdvae-sr", pictures, "--from", tiny_path, "--dtype", "float32"]
    words += ["--batch", 1, "--lr-size", 8, "--save-every", 2, "--log-every", 1, "--val-every", 0]
    words += ["--device", "cpu", "--elbo-from", 8, "--steps", STEPS, "--workers", 1, "-q", "--out"]
    assert vdsr(*words, tmp_path / "whole").code == 0
    folder, chance, killed_lives = tmp_path / "killed", random.Random(0), 0
    for _ in range(KILLS):
        before, process = progress(folder), lives([*words, folder])
        while progress(folder) <= min(before, STEPS - 1):
            time.sleep(0.002)
        time.sleep(chance.random() * 0.05)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        killed_lives += os.WIFSIGNALED(lives.wait())
    assert killed_lives >= 2
    lives([*words, folder])
    assert lives.wait() == 0
    whole, killed = (torch.load(f / "last.pt") for f in (tmp_path / "whole", folder))
    assert len(killed["legs"]) > 1
    for part in ("model", "ema"):
        for name, value in whole[part].items():
            assert torch.equal(value, killed[part][name]), (part, name)
    for one, other in zip(
        whole["optimizer"]["state"].values(), killed["optimizer"]["state"].values(), strict=True
    ):
        assert all(torch.equal(one[key], other[key]) for key in one)
    rows = run_folder.read_log(folder)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert not list(folder.glob(".vdsr-*"))


def progress(folder) -> int:
    return max((int(row["step"]) for row in run_folder.read_log(folder)), default=0)


def test_a_checkpoint_is_replaced_whole_and_the_one_before_stays(trainer):
    one = trainer(steps=4)
    one.run(RunPlan(save_every=2))
    names = sorted(path.name for path in one.folder.iterdir())
    assert names == ["last.pt", "previous.pt"]
    steps = [torch.load(one.folder / name)["step"] for name in names]
    assert steps == [4, 2]
    one.step = 5
    one.save()
    assert [torch.load(one.folder / name)["step"] for name in names] == [5, 4]
    (one.folder / "last.pt").unlink()
    assert runs.find_checkpoint(one.folder) == one.folder / "previous.pt"


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX's")
def test_checkpoints_keep_their_permissions(tmp_path):
    """The older one is a second name of a file that goes on being the newer one's for a moment."""
    for step in range(3):
        run_folder.write_checkpoint(tmp_path, {"step": step}, keep_previous=True)
        (tmp_path / "last.pt").chmod(0o604)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"last.pt": 0o604, "previous.pt": 0o604}
    run_folder.write_checkpoint(tmp_path, {"step": 3}, keep_previous=True)
    assert stat.S_IMODE((tmp_path / "last.pt").stat().st_mode) == 0o604


def test_a_full_disk_is_a_clear_error_and_the_last_checkpoint_stays(trainer, monkeypatch):
    one = trainer(steps=2)
    one.run(RunPlan(save_every=1))
    whole = (one.folder / "last.pt").read_bytes()

    def full(state, file):
        file.write(b"half a checkpoint")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="No space left") as caught:
        one.save()
    assert "intact" in caught.value.hint
    assert (one.folder / "last.pt").read_bytes() == whole
    assert not list(one.folder.glob(".vdsr-*"))


def test_gradients_that_stay_bad_end_the_run_with_the_last_good_state(trainer, monkeypatch):
    one = trainer(steps=50, give_up_after=4)
    for _ in range(3):
        one.train_step()
    one.folder.mkdir()
    one.save()
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    real = torch.nn.utils.clip_grad_norm_

    def poisoned(parameters, *arguments):
        parameters[0].grad.fill_(torch.inf)
        return real(parameters, *arguments)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", poisoned)
    with pytest.raises(DeviceError, match="4 steps in a row"):
        one.run(RunPlan(save_every=2))
    saved = torch.load(one.folder / "last.pt")
    assert all(torch.equal(before[n], v) for n, v in one.model.state_dict().items())
    assert all(torch.equal(before[n], v) for n, v in saved["model"].items())


def test_one_bad_step_is_counted_and_forgiven(trainer, monkeypatch):
    one = trainer(steps=6, give_up_after=2)
    real = torch.nn.utils.clip_grad_norm_

    def sometimes(parameters, *arguments):
        if one.step % 2:
            parameters[0].grad.fill_(torch.nan)
        return real(parameters, *arguments)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", sometimes)
    one.run()
    assert one.skipped == 3
    assert all(value.isfinite().all() for value in one.model.state_dict().values())
    again = trainer(steps=8)
    again.resume(one.folder / "last.pt")
    assert again.skipped == 3


@pytest.mark.parametrize("is_bad", [False, True])
def test_deciding_on_the_device_is_deciding_on_the_processor(trainer, is_bad):
    """The path of a GPU, which cannot ask whether a gradient is good, gives the same numbers."""
    waiting, blind = trainer("a"), trainer("b")
    blind._waits = False
    for one in (waiting, blind):
        one.train_step()
        if is_bad:
            one.config = TrainConfig(steps=6, batch=2, lr_size=8, skip_above=0.0)
        one.train_step()
    assert waiting.skipped == blind.skipped == int(is_bad)
    for one, other in zip(waiting._trained, blind._trained, strict=True):
        assert torch.equal(one, other)
    for one, other in zip(waiting._averages, blind._averages, strict=True):
        assert torch.allclose(one, other, atol=1e-7)


def test_a_leg_ends_with_its_minutes_and_with_a_wish(trainer):
    rows = []
    late = RunPlan(save_every=100, log_every=1, on_log=rows.append, deadline=time.monotonic())
    one = trainer("late")
    one.run(late)
    assert rows == [] and torch.load(one.folder / "last.pt")["step"] == 0
    stopped = RunPlan(
        save_every=100, log_every=1, on_log=rows.append, is_stopped=lambda: len(rows) == 2
    )
    other = trainer("stopped")
    other.run(stopped)
    assert torch.load(other.folder / "last.pt")["step"] == 2


def test_rows_of_lost_steps_leave_the_log(trainer, kill_writer):
    """So do unfinished files of ours, and no other file."""
    one = trainer(steps=3)
    one.run(RunPlan(log_every=1))
    with (one.folder / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": 4, "loss": 1.0}) + "\n" + '{"step": 5, "lo')
    (one.folder / ".vdsr-notes.txt").write_text("mine")
    kill_writer(one.folder / "last.pt")
    again = trainer(steps=4)
    again.resume(one.folder / "last.pt")
    again.run(RunPlan(log_every=1))
    assert [row["step"] for row in run_folder.read_log(one.folder)] == [1, 2, 3, 4]
    assert [path.name for path in one.folder.glob(".vdsr-*")] == [".vdsr-notes.txt"]


NO_ROWS = [
    b"[1]", b"7", b"null", b"{}", b'{"step": "1"}', b'{"step": NaN}', b'{"step": 1, "loss": "x"}',
    b'{"step": 1, "loss": null}', b'{"step": 1' + b"0" * 400 + b"}", b"[" * 5000, b"\xff\xfe",
    b'{"step": 1, "loss": 1' + b"0" * 5000 + b"}", b'{"step": 2, "lo',
]  # fmt: skip


@pytest.mark.parametrize("line", NO_ROWS)
def test_a_line_that_is_no_row_is_none(tmp_path, line):
    """Wherever it stands; what is logged after it stays whole."""
    log = tmp_path / "log.jsonl"
    log.write_bytes(line + b'\n{"step": 1, "loss": NaN, "val_psnr_y": 2.5}\n' + line)
    save_curves(run_folder.read_log(tmp_path) * 2, tmp_path / "curves.png")
    run_folder.prepare_folder(tmp_path, 1)
    run_folder.append_log(tmp_path, {"step": 2, "loss": 1.0})
    assert [row["step"] for row in run_folder.read_log(tmp_path)] == [1, 2]
    assert len(log.read_text().splitlines()) == 2


def test_a_folder_is_for_one_training_at_a_time(pictures, tmp_path, tiny_path, vdsr):
    words = ["train", "vdvae-sr", pictures, "--from", tiny_path, "--dtype", "float32", "-q"]
    words += ["--batch", 1, "--lr-size", 8, "--val-every", 0, "--device", "cpu", "--steps", 1]
    with run_folder.alone_in(tmp_path / "run"):
        ended = vdsr(*words, "--out", tmp_path / "run")
        assert ended.code == 6 and "another training is at work" in ended.err
    assert not (tmp_path / "run").exists()
    assert vdsr(*words, "--out", tmp_path / "run").code == 0
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["curves.png", "last.pt"]


def test_a_lock_that_a_killed_training_left_holds_nobody(tmp_path):
    (tmp_path / "run.lock").write_bytes(b"")
    with run_folder.alone_in(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(OutputError, match="cannot write into"),
        run_folder.alone_in(tmp_path / "file"),
    ):
        raise AssertionError("a file is no folder")


def link(path, victim):
    path.symlink_to(victim)


def own_file(path, victim):
    path.write_bytes(victim.read_bytes())


def pipe(path, victim):
    os.mkfifo(path)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and links are POSIX's")
@pytest.mark.parametrize("make", [link, own_file, pipe])
@pytest.mark.parametrize("name", ["run.lock", "log.jsonl", "curves.png", "mean.pt"])
def test_files_of_others_stay_in_a_folder_without_a_checkpoint(tmp_path, name, make):
    victim = tmp_path / "victim"
    victim.write_text('{"step": 1, "loss": 2.0}\n')
    (tmp_path / "run").mkdir()
    taken = tmp_path / "run" / name
    make(taken, victim)
    before = taken.lstat()
    with (
        pytest.raises(OutputError, match=f"{name} is in the way"),
        run_folder.alone_in(taken.parent),
    ):
        raise AssertionError("it was taken over")
    assert os.path.samestat(before, taken.lstat())
    assert victim.read_text() == '{"step": 1, "loss": 2.0}\n'


def test_a_run_killed_before_its_first_row_starts_anew(tmp_path):
    (tmp_path / "curves.png").write_bytes(b"drawn")
    (tmp_path / "run.lock").touch()
    with run_folder.alone_in(tmp_path):
        pass


@pytest.mark.parametrize("key", ["seconds_per_step", "val_psnr_y"])
def test_a_run_killed_before_its_first_checkpoint_starts_anew(tmp_path, key):
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 1, key: 1.0}) + '\n{"ste')
    (tmp_path / "curves.png").write_bytes(b"drawn")
    with run_folder.alone_in(tmp_path):
        run_folder.prepare_folder(tmp_path, 0)
    assert run_folder.read_log(tmp_path) == []


HOSTILE = {
    "a large buffer": b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    "code": b"cos\nsystem\n(S'true'\ntR.",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_checkpoint_is_judged_before_it_is_made(tmp_path, kind):
    path = tmp_path / "last.pt"
    path.write_bytes(HOSTILE[kind] * 2)
    tracemalloc.start()
    with pytest.raises(WeightsError):
        runs.read_checkpoint(path)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_a_checkpoint_that_says_more_than_it_holds_is_refused(trainer, tmp_path):
    one = trainer(steps=1)
    one.run()
    sound = runs.read_checkpoint(one.folder / "last.pt")
    wide = {name: torch.zeros(1).expand(10_000_000) for name in "abc"}
    for change in ({"ema": wide}, {"step": "1"}, {"skipped": None}, {"model": [1]}):
        torch.save({**sound, **change}, tmp_path / "last.pt")
        with pytest.raises(WeightsError, match="not the checkpoint of a run"):
            runs.read_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize("seed", [2**63, 2**64, 10**40, -(10**40), 2**43])
def test_a_seed_may_be_any_number(trainer, seed):
    one = trainer(steps=1, seed=seed)
    one.run()
    again = trainer("again", steps=1, seed=seed)
    again.run()
    assert all(torch.equal(value, again.ema[name]) for name, value in one.ema.items())
    assert runs.read_checkpoint(one.folder / "last.pt")["config"]["seed"] == seed


def test_a_checkpoint_of_another_model_is_refused(trainer, tmp_path):
    torch.save({"model": {}, "ema": {}, "step": 1, "optimizer": {}}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="another model"):
        trainer().resume(tmp_path / "other.pt")


def test_crops_that_no_latent_fits_are_refused(trainer):
    with pytest.raises(UsageError, match="10 LR pixels"):
        trainer(lr_size=10)


def test_figures_are_finite_and_complete(trainer):
    rows = []
    trainer(steps=2).run(RunPlan(log_every=1, on_log=rows.append))
    assert {"loss", "distortion_bits", "rate_bits", "mean_l1", "grad_norm"} <= rows[0].keys()
    assert all(math.isfinite(value) for row in rows for value in row.values())
