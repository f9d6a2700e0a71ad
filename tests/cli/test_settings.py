"""vdsr.toml: which entries hold for which command, and what is refused."""

import json
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The working folder's file and the user's, neither there yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "vdsr").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return Path("vdsr.toml"), tmp_path / "home" / "vdsr" / "vdsr.toml"


def seeds(vdsr, *arguments) -> list[int]:
    ended = vdsr("upscale", *arguments, "--json", "-q")
    assert ended.code == 0, ended.err
    return [json.loads(line)["seed"] for line in ended.out.decode().splitlines()]


def test_the_command_line_goes_before_the_folder_and_the_folder_before_the_user(
    vdsr, folders, save_picture, tiny_path
):
    here, user = folders
    save_picture(Path("lr.png"))
    user.write_text(f'overwrite = true\n[upscale]\nmodel = "{tiny_path}"\nseed = 3\n')
    assert seeds(vdsr, "lr.png") == [3]
    here.write_text("[upscale]\nseed = 4\n")
    assert seeds(vdsr, "lr.png") == [4]
    assert seeds(vdsr, "lr.png", "--seed", "5") == [5]


@pytest.mark.parametrize(
    ("held", "typed", "size"),
    [
        ("scale = 2", "--width=48", (48, 32)),
        ("width = 48", "-s2", (48, 32)),
        ("width = 36", "", (36, 24)),
    ],
)
def test_a_typed_size_goes_before_a_held_scale_and_a_typed_scale_before_a_held_size(
    vdsr, folders, save_picture, tiny_path, held, typed, size
):
    save_picture(Path("lr.png"), 24, 16)
    folders[0].write_text(f'[upscale]\nmodel = "{tiny_path}"\n{held}\n')
    ended = vdsr("upscale", "lr.png", *typed.split(), "-o", "out.png")
    assert ended.code == 0, ended.err
    with Image.open("out.png") as made:
        assert made.size == size
    both = vdsr("upscale", "lr.png", "-s2", "--width=48", "-o", "out.png")
    assert both.code == 2 and "exclude each other" in both.err


def test_a_picture_on_standard_output_goes_before_held_json(vdsr, folders, save_picture, tiny_path):
    save_picture(Path("lr.png"))
    folders[0].write_text(f'json = true\n[upscale]\nmodel = "{tiny_path}"\n')
    assert vdsr("upscale", "lr.png", "-o", "-").out.startswith(b"\x89PNG")
    assert vdsr("upscale", "lr.png", "-o", "-", "--json").code == 2


def test_the_name_of_an_output_goes_before_a_held_format(vdsr, folders, save_picture, tiny_path):
    save_picture(Path("lr.png"))
    folders[0].write_text(f'[upscale]\nmodel = "{tiny_path}"\nformat = "webp"\n')
    assert vdsr("upscale", "lr.png", "-o", "a.tif").out.startswith(b"a.tif")
    assert vdsr("upscale", "lr.png", "-o", "a").out.startswith(b"a/lr_x4.webp")
    assert vdsr("upscale", "lr.png", "-o", "b.tif", "--format", "webp").code == 2


def test_held_options_of_a_phase_wait_for_it(vdsr, folders):
    folders[0].write_text("[train.vdvae-sr]\nplain-weight = 10\n")
    ended = vdsr("train", "vdvae-sr", "absent", "-o", "run")
    assert "absent" in ended.err and "adversarial" not in ended.err


def test_a_picture_from_a_pipe_to_a_pipe_goes_before_held_json(
    vdsr, folders, save_picture, tiny_path
):
    lr = save_picture(Path("lr.png")).read_bytes()
    folders[0].write_text(f'json = true\n[upscale]\nmodel = "{tiny_path}"\n')
    assert vdsr("upscale", "-", stdin=lr).out.startswith(b"\x89PNG")
    assert vdsr("upscale", "-", "--json", stdin=lr).code == 2
    assert json.loads(vdsr("upscale", "-", "-o", "a.png", stdin=lr).out)["output"] == "a.png"


@pytest.mark.parametrize(
    ("text", "words", "told"),
    [
        ('[bench]\nagainst = "other"', ["bench", "absent"], "absent"),
        ('[train.vdvae-sr]\nval = "held"', ["train", "vdvae-sr", "absent", "-o", "run"], "absent"),
        ('[bench]\nagainst = ["other", "another"]', ["bench", "absent"], "absent"),
    ],
)
def test_a_text_stands_for_a_list_of_one(vdsr, folders, text, words, told):
    folders[0].write_text(text)
    ended = vdsr(*words)
    assert ended.code in (2, 3) and told in ended.lines[0]


def test_the_users_cluster_may_be_named_where_none_is_asked_for(
    vdsr, folders, save_picture, tiny_path
):
    save_picture(Path("lr.png"))
    folders[1].write_text(f'ray-address = "head:6379"\n[upscale]\nmodel = "{tiny_path}"\n')
    assert vdsr("upscale", "lr.png").code == 0


def test_config_shows_what_holds_and_why(vdsr, folders):
    here, user = folders
    user.write_text("seed = 3\n[train.vdvae-sr]\nlr-size = 16\n")
    here.write_text("[upscale]\nseed = 4\n")
    shown = json.loads(vdsr("config", "--json").out)
    assert [row["is_there"] for row in shown["files"]] == [True, True]
    held = {(o["command"], o["option"]): (o["value"], o["file"]) for o in shown["options"]}
    assert held["upscale", "seed"] == (4, str(here))
    assert held["bench", "seed"] == (3, str(user))
    assert held["train vdvae-sr", "lr-size"] == (16, str(user))
    assert ("train vdvae", "lr-size") not in held and ("weights list", "seed") not in held
    assert f"vdsr upscale --seed 4, by {here}" in vdsr("config").out.decode().splitlines()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("scele = 4", "scele is no command or option"),
        ("[upscale]\nlr-size = 4", "upscale.lr-size is no command or option"),
        ("[train]\n[train.vdvea]\nbatch = 1", "train.vdvea is no command or option"),
        ("seed = ", "cannot be read as TOML"),
        ('[upscale]\nseed = "many"', "seed"),
        ("[upscale]\nseed = 1979-05-27", "1979-05-27 is the value of no option"),
        ("[bench]\nmetrics = [[07:32:00]]", "07:32:00 is the value of no option"),
        ('[upscale]\nout = "a\\u0000b"', "is the value of no option"),
        ("overwrite = true", "overwrite is not taken from the working folder"),
        ("[compare]\noverwrite = true", "compare.overwrite is not taken from the working folder"),
        ('[serve]\nhost = "0.0.0.0"', "serve.host is not taken"),
        ('[upscale]\nengine = "ray"', "upscale.engine is not taken"),
        ('[upscale]\nout = "s3://bucket/x"', "upscale.out is not taken"),
        ('model = "hf://a/b/m.safetensors"', "model is not taken"),
        ('[serve]\nmodel = ["x", "https://a/m.safetensors#sha256=0"]', "serve.model is not taken"),
    ],
)
def test_what_cannot_be_meant_is_refused(vdsr, folders, text, told):
    folders[0].write_text(text)
    ended = vdsr("upscale", "--dry-run", "lr.png")
    assert ended.code == 2 and told in ended.err


def test_the_users_own_file_may_replace_files_also_when_one_stands_beside_it(
    vdsr, folders, save_picture, tiny_path, monkeypatch
):
    here, user = folders
    save_picture(Path("lr.png"))
    here.write_text("overwrite = false\n")
    user.write_text(f'overwrite = true\n[upscale]\nmodel = "{tiny_path}"\nout = "x.png"\n')
    monkeypatch.chdir(user.parent)
    save_picture(Path("lr.png"))
    for _ in range(2):
        assert vdsr("upscale", "lr.png").code == 0
    ended = vdsr("upscale", "lr.png", "--skip-existing")
    assert ended.code == 0 and "exists, skipped" in ended.out.decode()
