"""Runs over many pictures: what is skipped, refused, recorded and tried again."""

import os
from pathlib import Path

import pytest

from vdsr_cli.batch.listing import Work
from vdsr_cli.batch.manifest import Manifest
from vdsr_cli.batch.run import Outcome, failure, only_failed, output_sha256, run_works
from vdsr_cli.errors import InputError, WeightsError
from vdsr_cli.outputs import Existing
from vdsr_cli.services.upscale import UpscaleRequest, UpscaleResult


class Copier:
    """An engine that copies, and knows what it has been asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_closed = False

    def run(self, works):
        try:
            for work in works:
                self.asked.append(work.input)
                yield self.copied(work)
        finally:
            self.is_closed = True

    def copied(self, work: Work) -> Outcome:
        content = Path(work.input).read_bytes()
        if content == b"bad":
            return failure(work, InputError(f"{work.input}: it is bad", hint="mend it"))
        Path(work.output).write_bytes(content)
        result = UpscaleResult(input=work.input, output=work.output, seconds=0.5)
        return Outcome(work=work, result=result, sha256=output_sha256(work.output))


@pytest.fixture
def works(tmp_path, monkeypatch) -> list[Work]:
    """Three pictures in an empty folder, the second of them bad."""
    monkeypatch.chdir(tmp_path)
    for name, content in [("a", b"A"), ("b", b"bad"), ("c", b"C")]:
        Path(name).write_bytes(content)
    return [Work(input=name, output=f"{name}_x4") for name in "abc"]


def run(
    works, *, existing=Existing.refuse, manifest=None, engine=None
) -> tuple[Copier, list[UpscaleResult]]:
    engine, told = engine or Copier(), []
    request = UpscaleRequest(existing=existing)
    run_works(works, engine, request, manifest=manifest, on_outcome=lambda o: told.append(o.result))
    return engine, told


@pytest.fixture
def manifest(tmp_path):
    with Manifest(tmp_path / "manifest.jsonl") as opened:
        yield opened


def test_each_picture_has_a_line(works, manifest, tmp_path):
    engine, told = run(works, manifest=manifest)
    assert engine.asked == ["a", "b", "c"]
    assert [result.status for result in told] == ["done", "failed", "done"]
    first, bad, _ = manifest
    assert (first.input, first.output) == (str(tmp_path / "a"), str(tmp_path / "a_x4"))
    assert (first.status, first.seconds, first.exit_code) == ("done", 0.5, 0)
    assert first.sha256 == "559aead08264d5795d3909718cdd05abd49572e84fe55590eef31a88a08fdffd"
    assert (bad.status, bad.error, bad.exit_code) == ("failed", "b: it is bad", 3)
    assert bad.output == str(tmp_path / "b_x4") and bad.sha256 is None


def test_what_failed_is_tried_again(works, manifest):
    run(works, manifest=manifest)
    Path("b").write_bytes(b"B")
    engine, told = run(only_failed(works, manifest), manifest=manifest)
    assert engine.asked == ["b"] and told[0].status == "done"
    assert run(only_failed(works, manifest), manifest=manifest)[0].asked == []


def test_a_run_goes_on_where_it_stopped(works, manifest):
    run(works[:1], manifest=manifest)
    engine, told = run(works, existing=Existing.skip, manifest=manifest)
    assert engine.asked == ["b", "c"]
    assert [result.status for result in told] == ["skipped", "failed", "done"]
    assert [Path(record.input).name for record in manifest] == ["a", "b", "c"]


def test_an_output_that_a_killed_run_left_without_a_line_gets_one(works, manifest):
    run(works[2:])
    _, told = run(works, existing=Existing.skip, manifest=manifest)
    *_, last = manifest
    assert (last.status, last.sha256) == ("skipped", output_sha256("c_x4"))
    assert told[2].status == "skipped"
    run(works, existing=Existing.skip, manifest=manifest)
    assert [Path(r.input).name for r in manifest] == ["a", "b", "c", "b"]


def test_an_output_that_was_made_after_all_does_not_stay_failed(works, manifest):
    run(works, manifest=manifest)
    Path("b_x4").write_bytes(b"B")  # as by a run without a manifest
    _, told = run(only_failed(works, manifest), existing=Existing.skip, manifest=manifest)
    assert [result.status for result in told] == ["skipped"]
    *_, last = manifest
    assert (Path(last.input).name, last.status) == ("b", "skipped")
    assert last.sha256 == output_sha256("b_x4")
    assert list(only_failed(works, manifest)) == []


@pytest.mark.skipif(os.name != "posix", reason="devices and pipes of POSIX")
def test_a_pipe_or_a_device_has_no_hash(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert output_sha256(str(tmp_path / "pipe.png")) is None
    assert output_sha256(os.devnull) is None


def test_what_exists_is_refused_and_not_recorded(works, manifest):
    Path("a_x4").write_bytes(b"precious")
    engine, told = run(works, manifest=manifest)
    assert engine.asked == ["b", "c"] and Path("a_x4").read_bytes() == b"precious"
    assert told[0].exit_code == 6 and "exists already" in str(told[0].error)
    assert [Path(r.input).name for r in manifest] == ["b", "c"]
    assert run(works, existing=Existing.overwrite)[0].asked == ["a", "b", "c"]


def test_works_that_end_in_an_error_leave_none_unfinished(works):
    """Workers hold pictures when the listing fails, as at a folder that cannot be read."""

    class Holding(Copier):
        def run(self, works):
            held = list(works)
            yield from super().run(held)

    def failing():
        yield from works
        raise InputError("lost+found: cannot be read")

    told = []
    with pytest.raises(InputError, match="cannot be read"):
        run_works(
            failing(),
            Holding(),
            UpscaleRequest(),
            on_outcome=lambda o: told.append(o.result.status),
        )
    assert told == ["done", "failed", "done"]


def test_works_are_taken_as_they_are_needed(works):
    def endless():
        while True:
            yield works[0]

    engine = Copier()

    def stop_after_three(outcome: Outcome) -> None:
        if len(engine.asked) == 3:
            raise WeightsError("enough")

    with pytest.raises(WeightsError):
        run_works(
            endless(),
            engine,
            UpscaleRequest(existing=Existing.overwrite),
            on_outcome=stop_after_three,
        )
    assert engine.asked == ["a"] * 3 and engine.is_closed


def test_an_output_that_vanishes_before_it_is_hashed_is_skipped_all_the_same(
    works, manifest, monkeypatch
):
    Path("a_x4").touch()

    def vanished(path, flags):
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr("vdsr_cli.batch.run.unnoticed", vanished)
    _, told = run(works[:1], existing=Existing.skip, manifest=manifest)
    assert [result.status for result in told] == ["skipped"]
    assert [record.sha256 for record in manifest] == [None]
