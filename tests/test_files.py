"""Files appear whole or not at all."""

import errno
import os
import stat
import sys
from pathlib import Path

import pytest
from interrupts import interrupts

from vdsr_cli.errors import OutputError, OutputExistsError
from vdsr_cli.files import atomic_path, finished_name, new_file, write_text_atomic
from vdsr_cli.images.resumable import open_draft


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_success_leaves_the_new_file_alone(tmp_path):
    target = tmp_path / "out.png"
    target.write_text("old")
    with atomic_path(target) as temporary:
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".png")
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert names(tmp_path) == ["out.png"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_failure_leaves_the_old_file_alone(tmp_path, error):
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(error), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert names(tmp_path) == ["out.txt"]


def write_text(path: Path) -> None:
    write_text_atomic(path, "new")


def write_stream(path: Path) -> None:
    with new_file(path, replace=False) as stream:
        stream.write(b"new")


def write_draft(path: Path) -> None:
    with open_draft(path, lambda: "") as draft:
        draft.leave_head(100)
        draft.append(b"new")
        draft.commit(b"head")


@pytest.mark.filterwarnings("ignore")  # of files that are closed because nothing refers to them
@pytest.mark.parametrize("write", [write_text, write_stream, write_draft])
def test_an_interrupt_at_any_moment_leaves_the_whole_file_or_none(tmp_path, write):
    target = tmp_path / "out"
    write(target)  # which also fills what caches there are, so that all runs are alike
    whole = target.read_bytes()
    target.unlink()
    for moment in interrupts(lambda: write(target)):
        assert names(tmp_path) in ([], ["out"]), f"moment {moment}"
        if target.exists():
            assert target.read_bytes() == whole
            target.unlink()
    assert moment > 100 and target.read_bytes() == whole


@pytest.mark.filterwarnings("ignore")
def test_an_interrupt_at_any_moment_before_a_draft_goes_on_keeps_it(tmp_path):
    """Also while its bytes are hashed, which takes seconds of a large one."""
    target, begun = tmp_path / "out", []

    def begin() -> None:
        with open_draft(target, lambda: "", every_s=0) as draft:
            draft.append(b"more")
            draft.checkpoint(lambda: {"rows": 4})
            raise KeyboardInterrupt

    def go_on() -> None:
        with open_draft(target, lambda: "") as draft:
            begun.append(draft.state)

    with pytest.raises(KeyboardInterrupt):
        begin()
    for moment in interrupts(go_on):
        assert names(tmp_path) == ["out.part", "out.part.json"], f"moment {moment}"
    assert moment > 100 and begun[-1] == {"rows": 4}


def test_what_a_killed_writer_left_goes_with_the_next(tmp_path, kill_writer):
    target = tmp_path / "out.txt"
    kill_writer(target)
    kill_writer(tmp_path / "other.txt")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"half", b"half"]
    write_text_atomic(target, "new")
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [b"half", b"new"]


def test_two_writers_at_once_leave_each_other_alone(tmp_path):
    target = tmp_path / "out.txt"
    with atomic_path(target) as slow:
        slow.write_text("slow")
        write_text_atomic(target, "quick")
        assert (target.read_text(), slow.read_text()) == ("quick", "slow")
    assert target.read_text() == "slow"
    assert names(tmp_path) == ["out.txt"]


def test_a_folder_is_not_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError), atomic_path(tmp_path / "folder") as temporary:
        temporary.write_text("new")
    assert names(tmp_path) == ["folder"]


def test_a_missing_folder_is_an_error_before_the_block_runs(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "no" / "out.txt"):
        pytest.fail("the block ran")


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_text_atomic(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@pytest.mark.parametrize("lacks", ["nothing", "renameat2", "links"])
def test_a_file_that_appears_meanwhile_is_not_replaced_unasked(tmp_path, monkeypatch, lacks):
    """Also where the kernel or the disk lacks the one way or the other."""
    if lacks != "nothing":
        monkeypatch.setattr("vdsr_cli.files._is_renamed_by_linux", lambda file, target: False)
    if lacks == "links":

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", refuse)
    target = tmp_path / "out.txt"
    with atomic_path(target, replace=False) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new" and names(tmp_path) == ["out.txt"]
    with (
        pytest.raises(OutputExistsError, match="appeared meanwhile and is kept") as caught,
        atomic_path(target, replace=False),
    ):
        pass
    assert "--overwrite" in (caught.value.hint or "")
    assert target.read_text() == "new" and names(tmp_path) == ["out.txt"]


def test_a_second_name_that_a_kill_left_is_removed(tmp_path):
    """Where names are given by links, for a moment there are two."""
    target = tmp_path / "out.txt"
    target.write_text("whole")
    os.link(target, finished_name(target))
    with new_file(target, replace=True) as stream:
        stream.write(b"new")
    assert target.read_text() == "new" and names(tmp_path) == ["out.txt"]


def test_one_process_at_a_time_has_a_new_file(tmp_path):
    pytest.importorskip("fcntl")
    target = tmp_path / "out.txt"
    with new_file(target, replace=True) as stream:
        with (
            pytest.raises(OutputError, match=r"out\.txt: another run is writing it"),
            new_file(target, replace=True),
        ):
            pass
        stream.write(b"first")
    assert target.read_text() == "first" and names(tmp_path) == ["out.txt"]


def test_permissions_of_a_file_that_is_replaced_stay(tmp_path):
    target = tmp_path / "out.txt"
    for mode in (0o600, 0o664):
        target.write_text("old")
        target.chmod(mode)
        write_text_atomic(target, "new")
        assert stat.S_IMODE(target.stat().st_mode) == mode


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    with atomic_path(tmp_path / "out") as temporary:
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "out")}
    assert len(modes) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_disk_without_locks_is_written_to_and_keeps_what_may_be_in_work(
    tmp_path, kill_writer, monkeypatch, number
):
    def refuse(file, operation):
        raise OSError(number, os.strerror(number))

    kill_writer(tmp_path / "out.txt")
    monkeypatch.setattr("fcntl.flock", refuse)
    write_text_atomic(tmp_path / "out.txt", "new")
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [b"half", b"new"]


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes of POSIX")
def test_a_pipe_is_written_to_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with atomic_path(pipe) as temporary:
        temporary.write_text("new")
    assert os.read(reader, 100) == b"new"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
