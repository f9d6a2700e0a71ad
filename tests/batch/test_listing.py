"""A folder as a stream of work: the same pictures and names as a plan of all, one at a time."""

import contextlib
import inspect
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vdsr_cli.batch import listing
from vdsr_cli.batch.listing import FolderListing, takes_extension, work_on
from vdsr_cli.batch.store_listing import StoreListing
from vdsr_cli.errors import InputError, UsageError
from vdsr_cli.paths import drop_own_outputs, expand_inputs, plan_naming, plan_outputs
from vdsr_cli.training.data import find_pictures

STEMS = st.lists(st.sampled_from(["a", "b", "_", "jpg", "png", "JPG", "x4", "."]), min_size=1)
NAMES = st.builds(
    lambda parts, suffix: (
        ("".join(parts) if suffix else "_".join(parts).replace(".", "a")) + suffix
    ),
    STEMS,
    st.sampled_from([".png", ".jpg", ".PNG", ".JPG", ".Jpg", ".webp", ""]),
)


def output_of(name: str, names: set[str]) -> str:
    path = Path(name)
    is_long = takes_extension(name, lambda other: other != name and other in names)
    return f"{path.stem}_{path.suffix[1:]}" if is_long else path.stem


@given(st.sets(NAMES, max_size=12))
def test_no_two_names_have_one_output(names):
    outputs = [output_of(name, names) for name in names]
    assert len(set(outputs)) == len(names), sorted(zip(names, outputs, strict=True))


@pytest.mark.parametrize(
    ("names", "outputs"),
    [
        ({"a.png"}, {"a"}),
        ({"a.png", "b.jpg"}, {"a", "b"}),
        ({"a.png", "a.jpg"}, {"a_png", "a_jpg"}),
        ({"a.png", "a.PNG"}, {"a_png", "a_PNG"}),
        ({"a.jpg", "a_jpg.png"}, {"a", "a_jpg"}),
        ({"a.jpg", "a.png", "a_jpg.png"}, {"a_jpg", "a_png", "a_jpg_png"}),
        ({"a.dat", "a_dat.png"}, {"a_dat", "a_dat_png"}),
        ({"a", "b.png"}, {"a", "b"}),
        ({"a", "a.png"}, {"a", "a_png"}),
        ({"a", "a.png", "a_png"}, {"a", "a_png", "a_png_"}),
    ],
)
def test_names_stay_short_where_they_can(names, outputs):
    assert {output_of(name, names) for name in names} == outputs


@pytest.mark.parametrize("format", [None, "same"])
def test_pictures_without_extensions_have_outputs_of_their_own(tmp_path, format):
    for name in ("a", "a.png", "b.png", "c", "c_x4.png", "a_png"):
        Image.new("RGB", (2, 2)).save(tmp_path / name, "PNG")
    Path(tmp_path, "b").write_text("no picture")
    stream = FolderListing(folder=tmp_path, naming=plan_naming(None, tag="x4", format=format))
    outputs = {Path(w.input).name: Path(w.output).name for w in stream}
    assert outputs == {
        "a": "a_x4.png", "a.png": "a_png_x4.png", "a_png": "a_png__x4.png",
        "b.png": "b_x4.png", "c": "c_x4.png",
    }  # fmt: skip
    assert stream.own_outputs == 1


@pytest.fixture
def shots(tmp_path, monkeypatch):
    """A folder ``shots`` with pictures, earlier outputs and other files, seen from its parent."""
    monkeypatch.chdir(tmp_path)
    for name in [
        "b.png", "a.JPG", "notes.txt", ".hidden.png", "sub/c.webp", "sub/c.png", "sub/deep/a.tif",
        ".cache/d.png", "png", "b_x4.png", "sub/c_webp_x4.png", "lone_x4.png", "large/b_x4.png",
    ]:  # fmt: skip
        path = Path("shots", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    Path("shots/folder.png").mkdir()
    return Path("shots")


def listed(out: str | None, *, recursive: bool = True) -> FolderListing:
    naming = plan_naming(out, tag="x4")
    return FolderListing(folder=Path("shots"), naming=naming, recursive=recursive)


@pytest.mark.parametrize("out", [None, "elsewhere/", "shots/large", "shots"])
@pytest.mark.parametrize("recursive", [False, True])
def test_the_stream_is_the_plan(shots, out, recursive):
    naming = plan_naming(out, tag="x4")
    sources, own = drop_own_outputs(expand_inputs(["shots"], recursive=recursive), naming)
    planned = map(work_on, sources, plan_outputs(sources, naming))
    stream = listed(out, recursive=recursive)
    assert {(w.input, w.output) for w in stream} == {(w.input, w.output) for w in planned}
    in_out = sum(source.path.parent.name == "large" for source in own)
    assert stream.own_outputs == len(own) - in_out, "the folder of -o is not even looked into"


def test_a_small_folder_comes_in_order(shots):
    assert [work.input for work in listed("out")] == [
        "shots/a.JPG", "shots/b.png", "shots/lone_x4.png", "shots/large/b_x4.png",
        "shots/sub/c.png", "shots/sub/c.webp", "shots/sub/deep/a.tif",
    ]  # fmt: skip


def by_a_link_of_the_folder_above(shots: Path) -> str:
    Path("shots/shots").mkdir()
    Path("shots/shots/y.png").touch()
    Path("shots/y_x4.png").touch()
    Path("above").symlink_to(".")
    return "above/"


def by_an_output_that_is_a_link(shots: Path) -> str:
    Path("out").mkdir()
    Path("out/b_x4.png").symlink_to(Path("../shots/lone_x4.png"))
    return "out/"


def by_an_output_beside_that_is_a_link(shots: Path) -> str:
    Path("shots/b_x4.png").unlink()
    Path("shots/b_x4.png").symlink_to("lone_x4.png")
    return "shots/"


@pytest.mark.parametrize(
    "alias",
    [
        by_a_link_of_the_folder_above,
        by_an_output_that_is_a_link,
        by_an_output_beside_that_is_a_link,
    ],
)
def test_an_input_is_never_an_output(shots, alias):
    with pytest.raises(UsageError, match="is an input of this run and would be replaced"):
        list(listed(alias(shots)))


def test_the_folder_of_o_is_left_out_by_any_name(shots):
    Path("linked").symlink_to("shots/large")
    assert not any("large" in work.input for work in listed("linked/"))


def test_a_large_folder_is_read_as_it_is_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("shots").mkdir()
    for index in range(40):
        Path("shots", f"{index}.png").touch()
    seen = []
    scandir = os.scandir

    class Counted:
        def __init__(self, folder):
            self._entries = scandir(folder)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._entries.close()

        def __iter__(self):
            return self

        def __next__(self):
            entry = next(self._entries)
            seen.append(entry.name)
            return entry

    monkeypatch.setattr(listing.os, "scandir", Counted)
    monkeypatch.setattr(listing, "_BLOCK", 10)
    works = iter(listed("out"))
    next(works)
    assert len(seen) == 10
    assert sum(1 for _ in works) == 39 and len(seen) == 40


def test_nothing_to_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("shots/below").mkdir(parents=True)
    Path("shots/below/a.png").touch()
    with pytest.raises(InputError, match="no pictures") as caught:
        list(listed("out", recursive=False))
    assert "-r" in str(caught.value.hint)
    assert len(list(listed("out"))) == 1


def test_a_folder_that_cannot_be_listed_stops_no_other(shots, monkeypatch):
    scandir = os.scandir

    def guarded(folder):
        if Path(folder).name == "sub":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(listing.os, "scandir", guarded)
    works = iter(listed("out"))
    names = [Path(next(works).input).name for _ in range(4)]
    assert names == ["a.JPG", "b.png", "lone_x4.png", "b_x4.png"]
    with pytest.raises(InputError, match=r"shots.sub: cannot be read: permission denied"):
        next(works)


def test_where_nothing_can_be_listed_nothing_is_found(tmp_path, monkeypatch):
    def guarded(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(listing.os, "scandir", guarded)
    naming = plan_naming("out/", tag="x4")
    with pytest.raises(InputError, match="cannot be read: permission denied"):
        list(FolderListing(folder=tmp_path, naming=naming, on_unread=lambda error: None))


def test_an_input_is_never_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in/shots/shots/a.png", "in/shots/a_x4.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    naming = plan_naming("in", tag="x4")
    with pytest.raises(UsageError, match="would be replaced"):
        list(FolderListing(folder=Path("in/shots"), naming=naming, recursive=True))


@pytest.mark.parametrize("out", ["in", "./in/", "link", "above/../in"])
def test_an_output_without_a_mark_is_no_later_input(tmp_path, monkeypatch, out):
    """a.jpg would become a_jpg.png, as there is an a.png."""
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.jpg", "in/a.png", "in/a_jpg.png", "above/x"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    Path("link").symlink_to("in")
    naming = replace(plan_naming(out, tag="x4"), text="")
    with pytest.raises(UsageError, match=r"a_jpg\.png is an input of this run"):
        list(FolderListing(folder=Path("in"), naming=naming))
    naming = replace(naming, folder=Path("in/out"))
    Path("in/out").mkdir()
    Path("in/out/a_jpg.png").touch()
    works = list(FolderListing(folder=Path("in"), naming=naming, recursive=True))
    assert [Path(work.output).name for work in works] == ["a_jpg.png", "a_png.png", "a_jpg_png.png"]


def test_outputs_of_a_mark_of_ones_own_are_not_enlarged_again(tmp_path):
    for name in ("a.png", "a_big.png", "a_x4.png"):
        (tmp_path / name).touch()
    naming = replace(plan_naming(None, tag="x4"), text="_big")
    stream = FolderListing(folder=tmp_path, naming=naming)
    assert [Path(work.input).name for work in stream] == ["a.png", "a_x4.png"]
    assert stream.own_outputs == 1


@pytest.mark.parametrize("out", ["memory://in", "memory://in/", "memory://"])
def test_outputs_without_a_mark_go_nowhere_above_their_store(out):
    naming = replace(plan_naming("out/", tag="x4"), text="")
    with pytest.raises(UsageError, match="is the input, or above it"):
        next(iter(StoreListing(folder="memory://in", naming=naming, out=out, recursive=True)))


@pytest.fixture
def deep(tmp_path):
    """The last of 250 folders in one another, more than Python lets functions call each other."""
    levels = [tmp_path.joinpath(*["d"] * depth) for depth in range(1, 251)]
    for level in levels:
        os.mkdir(level)
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 200)
    yield levels[-1]
    sys.setrecursionlimit(before)
    (levels[-1] / "a.png").unlink()
    for level in reversed(levels):  # rmtree calls itself
        os.rmdir(level)


def test_folders_may_be_deeper_than_python_calls(deep):
    (deep / "a.png").touch()
    found, top = str(deep / "a.png"), deep.parents[249]
    naming = plan_naming("out/", tag="x4")
    works = list(FolderListing(folder=top, naming=naming, recursive=True))
    assert [work.input for work in works] == [found]
    assert [str(source.path) for source in expand_inputs([str(top)], recursive=True)] == [found]
    assert find_pictures([top]) == [Path(found)]
    with contextlib.suppress(InputError):  # one line, where glob calls itself
        assert [str(s.path) for s in expand_inputs([f"{top}/**/*.png"])] == [found]


def test_a_picture_that_vanishes_is_told_when_it_is_read(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).touch()
    works = iter(FolderListing(folder=tmp_path, naming=plan_naming("out/", tag="x4")))
    first = next(works)
    (tmp_path / "b.png").unlink()
    assert [Path(work.input).name for work in (first, *works)] == ["a.png", "b.png", "c.png"]


def test_an_empty_part_of_a_key_has_a_name(monkeypatch):
    keys = ["/a.png", "b//a.png", "b/a.png"]
    listing = StoreListing(folder="memory://in", naming=plan_naming("out/", tag="x4"))
    monkeypatch.setattr(StoreListing, "_names", lambda self: iter(keys))
    assert [(work.input, work.output) for work in listing] == [
        ("memory://in//a.png", "out/%/a_x4.png"),
        ("memory://in/b//a.png", "out/b/%/a_x4.png"),
        ("memory://in/b/a.png", "out/b/a_x4.png"),
    ]
