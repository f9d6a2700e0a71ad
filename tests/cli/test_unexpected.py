"""An unexpected error fails one picture: one line, exit 1, the traceback behind --debug."""

import pickle

import pytest

from vdsr_cli.errors import UnexpectedError, VdsrError


def all_below(kind):
    """Every class under one."""
    return [found for child in kind.__subclasses__() for found in (child, *all_below(child))]


@pytest.fixture
def break_one(monkeypatch):
    """``break_one("b.png")``: reading a picture of that name ends in an error of no known kind."""

    def install(name):
        from vdsr_cli.images import decode, series

        open_source = decode.open_source

        def failing(stream, *arguments, **options):
            if str(getattr(stream, "name", "")).endswith(name):
                raise ZeroDivisionError("the fault of this test")
            return open_source(stream, *arguments, **options)

        for module in (decode, series):
            monkeypatch.setattr(module, "open_source", failing)

    return install


@pytest.mark.parametrize("is_debugging", [False, True])
def test_the_other_pictures_of_a_folder_go_on(
    vdsr, tmp_path, tiny_path, save_picture, break_one, is_debugging
):
    for name in "abc":
        save_picture(tmp_path / f"{name}.png")
    break_one("b.png")
    debug = ["--debug"] if is_debugging else []
    ended = vdsr("upscale", tmp_path, "-o", tmp_path / "out", "-m", tiny_path, *debug)
    assert ended.code == 1
    made = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert made == ["a_x4.png", "c_x4.png"]
    assert "b.png: an error of vdsr itself: ZeroDivisionError: the fault of this test" in ended.err
    assert ("Traceback" in ended.err) == is_debugging
    assert "--debug" in ended.err


@pytest.mark.parametrize("is_debugging", [False, True])
def test_a_bench_goes_on(vdsr, tmp_path, save_picture, break_one, is_debugging):
    for name in "ab":
        save_picture(tmp_path / f"{name}.png", 32, 32)
    break_one("b.png")
    debug = ["--debug"] if is_debugging else []
    ended = vdsr("bench", tmp_path, "-m", "bicubic", "--metrics", "none", "--no-verify", *debug)
    assert ended.code == 1
    assert "b.png: an error of vdsr itself: ZeroDivisionError" in ended.err
    assert ("Traceback" in ended.err) == is_debugging
    assert b"bicubic" in ended.out


def test_one_picture_alone_is_one_line_too(vdsr, tmp_path, tiny_path, save_picture, break_one):
    save_picture(tmp_path / "b.png")
    break_one("b.png")
    ended = vdsr("sample-diverse", tmp_path / "b.png", "-n", 2, "-m", tiny_path)
    assert ended.code == 1
    assert "Traceback" not in ended.err
    ended = vdsr("sample-diverse", tmp_path / "b.png", "-n", 2, "-m", tiny_path, "--debug")
    assert "Traceback" in ended.err


@pytest.mark.parametrize("error", [VdsrError, *all_below(VdsrError)])
def test_errors_survive_the_way_between_processes(error):
    made = error("x", ValueError("y")) if error is UnexpectedError else error("x", hint="y")
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is error and str(again) == str(made)
    assert (again.hint, again.details) == (made.hint, made.details)
