"""Which pictures are read, and what their outputs are called."""

import os
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsr_cli.errors import InputError, UsageError
from vdsr_cli.paths import (
    INPUT_SUFFIXES,
    OUTPUT_SUFFIXES,
    STDIN,
    Naming,
    Source,
    drop_own_outputs,
    expand_inputs,
    may_be_several,
    output_format,
    output_path,
    plan_naming,
    plan_outputs,
    scale_tag,
)

X4 = Naming(tag="x4")


def named(*paths):
    return [Source(path=Path(path)) for path in paths]


def planned(sources, naming=X4):
    return [None if path is None else path.as_posix() for path in plan_outputs(sources, naming)]


@pytest.fixture
def shots(tmp_path, monkeypatch):
    """A folder ``shots`` with pictures, other files and folders, seen from its parent."""
    monkeypatch.chdir(tmp_path)
    for name in [
        "shots/b.png", "shots/a.JPG", "shots/notes.txt", "shots/.hidden.png", "shots/sub/c.webp",
        "shots/sub/deep/a.tif", "shots/.cache/d.png", "shots/png", "odd[1].png",
    ]:  # fmt: skip
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("shots/folder.png").mkdir()
    return tmp_path


def paths_of(sources):
    return [source.path.as_posix() for source in sources]


# Names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "tag"), [(4, "x4"), (4.0, "x4"), (2.5, "x2.5"), (3, "x3"), (16, "x16")]
)
def test_scale_tags(scale, tag):
    assert scale_tag(scale) == tag


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("photo.jpg", "photo_x4.png"),
        ("in/photo.final.PNG", "in/photo.final_x4.png"),
        ("in/photo", "in/photo_x4.png"),
        ("in/.photo.png", "in/.photo_x4.png"),
        ("grün 1.png", "grün 1_x4.png"),
    ],
)
def test_the_default_is_a_png_beside_the_input(source, output):
    assert planned(named(source)) == [output]


def test_every_format_can_be_asked_for():
    for suffix, format in OUTPUT_SUFFIXES.items():
        assert output_format(Path(f"a{suffix.upper()}")) == format
        chosen = plan_naming(None, tag="x4", format=format)
        assert OUTPUT_SUFFIXES[chosen.suffix] == format
    assert set(OUTPUT_SUFFIXES) < INPUT_SUFFIXES


def test_out_may_be_a_file(tmp_path):
    naming = plan_naming(str(tmp_path / "big.JPEG"), tag="x4")
    assert plan_outputs(named("a.png"), naming) == [tmp_path / "big.JPEG"]
    assert naming.suffix == ".jpg"
    plan_naming("big.jpg", tag="x4", format="jpg")


@pytest.mark.parametrize("out", ["new", "new/", "new.folder/", "there.png"])
def test_out_may_be_a_folder(out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("there.png").mkdir()
    naming = plan_naming(out, tag="x4", format="webp")
    assert planned(named("in/a.png", "b.png"), naming) == [
        f"{out.rstrip('/')}/a_x4.webp",
        f"{out.rstrip('/')}/b_x4.webp",
    ]


def test_a_folder_may_have_a_dot_where_several_outputs_may_come(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    naming = plan_naming("out/t0.8", tag="x4", is_several=True)
    assert planned(named("in/a.png"), naming) == ["out/t0.8/a_x4.png"]
    assert plan_naming("a.webp", tag="x4", is_several=True).file == Path("a.webp")
    Path("notes.v2").touch()
    with pytest.raises(UsageError, match=r"\.v2 is no picture format"):
        plan_naming("notes.v2", tag="x4", is_several=True)


def test_what_may_be_several(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a[1].png").touch()
    assert all(map(may_be_several, (["a", "b"], ["."], ["*.png"])))
    assert not any(map(may_be_several, (["a[1].png"], ["a.png"], ["-"])))


def test_out_may_be_standard_output():
    naming = plan_naming("-", tag="x4")
    assert planned(named("a.png"), naming) == [None]
    with pytest.raises(UsageError, match="2 pictures cannot all go into standard output"):
        plan_outputs(named("a.png", "b.png"), naming)


@pytest.mark.parametrize(
    ("out", "format", "message"),
    [
        ("a.exr", None, r"\.exr is no picture format"),
        ("a.v2", None, r"\.v2 is no picture format"),
        ("a.png", "jpg", "disagree"),
        (None, "exr", "--format exr is unknown"),
    ],
)
def test_impossible_outputs(out, format, message):
    with pytest.raises(UsageError, match=message) as caught:
        plan_naming(out, tag="x4", format=format)
    assert caught.value.hint is not None


def test_an_existing_file_without_extension_is_not_taken_for_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="no extension"):
        plan_naming(str(tmp_path / "file"), tag="x4")


def test_several_pictures_need_a_folder():
    with pytest.raises(UsageError, match=r"2 pictures cannot all go into b\.png") as caught:
        plan_outputs(named("a.png", "c.png"), Naming(tag="x4", file=Path("b.png")))
    assert caught.value.hint == "give -o a folder"


def test_standard_input_goes_to_standard_output_unless_told():
    assert planned([STDIN]) == [None]
    assert planned([STDIN], Naming(tag="x4", folder=Path("out"))) == ["out/stdin_x4.png"]
    assert planned([STDIN], Naming(tag="x4", file=Path("a.png"))) == ["a.png"]


def test_a_naming_is_one_thing():
    with pytest.raises(ValueError, match="exclude"):
        Naming(tag="x4", folder=Path("a"), is_stdout=True)


# Clashes ----------------------------------------------------------------------------------------


def test_one_stem_twice():
    sources = named("in/a.png", "in/a.jpg", "in/b.jpg")
    assert planned(sources) == ["in/a_png_x4.png", "in/a_jpg_x4.png", "in/b_x4.png"]


def test_names_that_differ_in_case_alone_clash():
    assert planned(named("a.jpg", "A.png")) == ["a_jpg_x4.png", "A_png_x4.png"]


def test_one_name_from_two_folders():
    naming = Naming(tag="x4", folder=Path("out"))
    assert planned(named("x/a.png", "y/a.png", "y/b.png"), naming) == [
        "out/x_a_png_x4.png",
        "out/y_a_png_x4.png",
        "out/b_x4.png",
    ]
    assert planned(named("p/x/a.png", "q/x/a.png"), naming) == [
        "out/p_x_a_png_x4.png",
        "out/q_x_a_png_x4.png",
    ]


def test_a_longer_name_may_clash_in_turn():
    sources = named("a.png", "a.jpg", "a_png.png")
    outputs = planned(sources)
    assert len(set(outputs)) == 3
    assert outputs[1] == "a_jpg_x4.png"


def test_sources_that_differ_in_case_alone():
    assert planned(named("in/a.png", "in/A.png")) == ["in/a_x4.png", "in/A_x4.png"]


def test_a_clash_that_cannot_be_settled():
    with pytest.raises(UsageError, match="written to the same file"):
        plan_outputs(named("a.png", "a.png"), X4)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "x", "y", "x/y"]),
            st.sampled_from(["a", "b", "A"]),
            st.sampled_from(["png", "jpg", "PNG"]),
        ),
        unique=True,
        max_size=5,
    ),
    st.sampled_from([None, Path("out")]),
)
def test_outputs_are_distinct_and_do_not_depend_on_the_order(parts, folder):
    sources = [Source(path=Path(above, f"{stem}.{suffix}")) for above, stem, suffix in parts]
    naming = Naming(tag="x4", folder=folder)
    expected = dict(zip(sources, plan_outputs(sources, naming), strict=True))
    assert len(set(expected.values())) == len(sources)
    if len({str(source.path).casefold() for source in sources}) == len(sources):
        assert len({str(output).casefold() for output in expected.values()}) == len(sources)
    for order in list(permutations(sources))[:24]:
        assert dict(zip(order, plan_outputs(order, naming), strict=True)) == expected


# Inputs -----------------------------------------------------------------------------------------


def test_a_folder_gives_its_pictures_sorted(shots):
    sources = expand_inputs(["shots"])
    assert paths_of(sources) == ["shots/a.JPG", "shots/b.png"]
    assert {source.root for source in sources} == {Path("shots")}


def test_a_recursive_folder_keeps_its_tree(shots):
    sources = expand_inputs(["shots/"], recursive=True)
    assert paths_of(sources) == [
        "shots/a.JPG",
        "shots/b.png",
        "shots/sub/c.webp",
        "shots/sub/deep/a.tif",
    ]
    assert planned(sources, plan_naming("out", tag="x4")) == [
        "out/a_x4.png",
        "out/b_x4.png",
        "out/sub/c_x4.png",
        "out/sub/deep/a_x4.png",
    ]
    assert planned(sources)[2] == "shots/sub/c_x4.png"


@pytest.mark.parametrize(
    ("pattern", "found", "root"),
    [
        ("shots/*.png", ["shots/b.png"], "shots"),
        ("shots/*", ["shots/a.JPG", "shots/b.png"], "shots"),
        ("shots/*/*.webp", ["shots/sub/c.webp"], "shots"),
        (
            "**/*.[tj][ip]*",
            ["shots/sub/deep/a.tif"],
            ".",
        ),
        ("./odd*", ["odd[1].png"], "."),
    ],
)
def test_patterns(shots, pattern, found, root):
    sources = expand_inputs([pattern])
    assert paths_of(sources) == found
    assert {source.root for source in sources} == {Path(root)}


def test_absolute_patterns(shots):
    (source,) = expand_inputs([f"{shots}/sh*/b.png"])
    assert source.root == shots
    assert planned([source], plan_naming("out/", tag="x4")) == ["out/shots/b_x4.png"]


def test_named_files_stand_for_themselves(shots):
    arguments = ["missing.png", "shots/notes.txt", "odd[1].png", "shots/.hidden.png", "-"]
    sources = expand_inputs(arguments)
    assert paths_of(sources) == [*arguments[:-1], "stdin"]
    assert [source.is_stdin for source in sources] == [False] * 4 + [True]
    assert all(source.root is None for source in sources)


def test_every_picture_comes_once(shots):
    Path("link.png").symlink_to("shots/b.png")
    sources = expand_inputs(["shots/b.png", "./shots/../shots/b.png", "shots", "link.png"])
    assert paths_of(sources) == ["shots/b.png", "shots/a.JPG"]


def test_links_to_folders_are_not_followed(shots):
    Path("shots/sub/loop").symlink_to(shots / "shots")
    assert len(expand_inputs(["shots"], recursive=True)) == 4


@pytest.mark.parametrize(
    ("argument", "message"),
    [("empty", "no pictures in this folder"), ("shots/*.gif", "no picture matches")],
)
def test_nothing_to_read(shots, argument, message):
    Path("empty").mkdir()
    with pytest.raises(InputError, match=message):
        expand_inputs([argument])


def test_standard_input_comes_once():
    with pytest.raises(UsageError, match="only once"):
        expand_inputs(["-", "-"])


# Our own outputs --------------------------------------------------------------------------------


def dropped(sources, naming=X4):
    return paths_of(drop_own_outputs(sources, naming)[1])


def test_a_second_run_reads_the_same_pictures(shots):
    first = expand_inputs(["shots"], recursive=True)
    for output in plan_outputs(first, X4):
        output.touch()
    again = expand_inputs(["shots"], recursive=True)
    assert len(again) == 8
    kept, left_out = drop_own_outputs(again, X4)
    assert kept == first
    assert len(left_out) == 4


def test_names_from_clashes_are_known_too(shots):
    Path("shots/b.jpg").touch()
    first = expand_inputs(["shots"])
    for output in plan_outputs(first, X4):
        output.touch()
    assert drop_own_outputs(expand_inputs(["shots"]), X4)[0] == first


def test_what_only_looks_like_an_output_is_read(shots):
    for name in ["alone_x4.png", "b_x2.png", "b_x4"]:
        Path("shots", name).touch()
    Path("shots/sub/b_x4.png").touch()  # b.png is in another folder
    assert dropped(expand_inputs(["shots"], recursive=True)) == []
    Path("shots/b_x4.png").touch()
    assert dropped(expand_inputs(["shots"], recursive=True)) == ["shots/b_x4.png"]
    assert dropped(named("shots/b.png", "shots/b_x4.png")) == []  # named by the user


def test_the_output_folder_inside_the_input_folder(shots):
    naming = plan_naming("shots/out/", tag="x4")
    first = expand_inputs(["shots"], recursive=True)
    for output in plan_outputs(first, naming):
        output.parent.mkdir(parents=True, exist_ok=True)
        output.touch()
    again = expand_inputs(["shots"], recursive=True)
    assert drop_own_outputs(again, naming)[0] == first
    # An output folder that is the input folder does not swallow it.
    assert dropped(first, plan_naming("shots", tag="x4")) == []


def test_planning_looks_at_no_disk(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("touched the disk")

    for name in ("stat", "lstat", "scandir", "listdir"):
        monkeypatch.setattr(os, name, refuse)
    sources = named("a.png", "a.jpg")
    plan_outputs(sources, Naming(tag="x4", folder=Path("out")))
    drop_own_outputs(sources, X4)
    output_path(STDIN, X4)
