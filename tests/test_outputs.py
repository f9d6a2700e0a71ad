"""The rule for outputs: nothing is replaced unasked, and no input ever, whatever it is called."""

import os
from pathlib import Path

import pytest

from vdsr_cli.errors import OutputError, OutputExistsError, UsageError
from vdsr_cli.outputs import Existing, check_outputs, is_taken, refuse_inputs


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """The working folder: two inputs, and links to one and to their folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "a_x4.png"):
        Path(name).write_bytes(b"precious")
    return tmp_path


INPUTS = [Path("a.png"), Path("a_x4.png")]


def test_an_output_may_be_new():
    refuse_inputs([Path("b.png"), Path("new/a.png"), None], INPUTS)
    check_outputs([Path("b.png"), None], Existing.refuse, inputs=INPUTS)


def by_a_longer_path() -> Path:
    return Path("../" + Path.cwd().name + "/./a.png")


def by_a_link() -> Path:
    Path("link.png").symlink_to("a.png")
    return Path("link.png")


def by_a_linked_folder() -> Path:
    Path("linked").symlink_to(".")
    return Path("linked/a_x4.png")


def by_a_second_name() -> Path:
    os.link("a.png", "second.png")
    return Path("second.png")


def where_neither_is_there_yet() -> Path:
    Path("a_x4.png").unlink()
    return by_a_linked_folder()


@pytest.mark.parametrize(
    "alias",
    [by_a_longer_path, by_a_link, by_a_linked_folder, by_a_second_name, where_neither_is_there_yet],
)
def test_an_input_is_never_an_output(alias):
    output = alias()
    with pytest.raises(UsageError, match=r"is an input of this run and would be replaced"):
        refuse_inputs([output], INPUTS)
    with pytest.raises(UsageError):
        check_outputs([output], Existing.overwrite, inputs=INPUTS)


def test_what_exists_is_refused_unless_told_otherwise():
    with pytest.raises(OutputExistsError, match=r"a\.png exists already"):
        check_outputs([Path("b.png"), Path("a.png")], Existing.refuse)
    check_outputs([Path("a.png")], Existing.skip)
    check_outputs([Path("a.png")], Existing.overwrite)


def test_a_name_that_no_file_can_have_is_refused_first():
    with pytest.raises(OutputError, match=r"its name is too long$"):
        check_outputs([Path("n" * 300 + ".png")], Existing.skip)
    assert sorted(os.listdir()) == ["a.png", "a_x4.png"]


def test_two_outputs_of_one_name_are_refused():
    with pytest.raises(UsageError, match="same name"):
        check_outputs([Path("b.png"), by_a_longer_path(), Path("./b.png")], Existing.overwrite)


@pytest.mark.skipif(os.name != "posix", reason="devices and pipes of POSIX")
def test_a_pipe_or_a_device_is_fed_and_not_replaced():
    os.mkfifo("pipe.png")
    for path in (Path("pipe.png"), Path(os.devnull)):
        assert not is_taken(path)
        check_outputs([path, path], Existing.refuse, inputs=[path])
