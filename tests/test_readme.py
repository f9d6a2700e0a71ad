"""The README and docs/ say what is true: their commands exist, their links lead somewhere."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {"README.md": README} | {
    f"docs/{path.name}": path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "docs").glob("*.md"))
    if path.name != "cli.md"
}
FENCED = re.findall(r"```sh\n(.+?)\n```", README, flags=re.DOTALL)


def shown_in(page: str) -> list[str]:
    """The commands that a page shows, without what is said of them."""
    return re.findall(r"^    (?:cat \S+ \| )?(vdsr .+?)(?:  .*)?$", page, flags=re.MULTILINE)


CLAIMED = re.findall(
    r"`(vdsr [^`]+)`", "\n".join(re.findall(r"^\|.+", PAGES["docs/papers.md"], re.M))
)
"""The commands of the tables of papers.md."""
SHOWN = sorted({command for page in PAGES.values() for command in shown_in(page)} | {*CLAIMED})


def anchors(page: str) -> set[str]:
    """The links to its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 180


def test_the_two_set_up_commands_are_single_lines() -> None:
    assert len(FENCED) == 2
    assert all("\n" not in command for command in FENCED)


def test_ci_runs_the_test_command_word_for_word() -> None:
    assert " -m pytest" in FENCED[1]
    assert FENCED[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("shown", SHOWN)
def test_shown_commands_use_options_that_exist(shown, vdsr, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    words = shlex.split(shown.split(" > ")[0])[1:]
    command = words[: 2 if words[0] in {"train", "weights", "srvae", "cnn-vae"} else 1]
    ended = vdsr(*(["--help"] if command[0].startswith("-") else [*command, "--help"]))
    assert ended.code == 0
    offered = set(re.findall(r"--?[a-z][a-z-]*", ended.out.decode()))
    assert {word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)} <= offered


def test_shown_scripts_are_there() -> None:
    scripts = {
        s for p in PAGES.values() for s in re.findall(r"python ((?:benchmarks|tools)/\S+?)[\s`]", p)
    }
    assert len(scripts) > 20
    assert not [script for script in scripts if not (ROOT / script).exists()]


def test_shown_commands_are_found() -> None:
    assert len(CLAIMED) > 25
    assert len(shown_in(README)) >= 10
    assert len(SHOWN) > 40


def test_the_readmes_commands_succeed_in_order(vdsr, tmp_path, monkeypatch) -> None:
    """As typed one after the other in a fresh clone, after the command that installs."""
    names = ("photo.png", "detail.png", "phone.jpg", "SOURCES.md")
    (tmp_path / "examples").mkdir()
    for name in names:
        shutil.copy(ROOT / "examples" / name, tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    first = FENCED[0].rpartition(" && .venv/bin/")[2]
    for command in [first, *shown_in(README)]:
        ended = vdsr(*shlex.split(command)[1:])
        assert ended.code == 0, f"{command}\n{ended.err}"
    (program,) = re.findall(r"```python\n(.+?)```", README, flags=re.DOTALL)
    exec(program, {})
    assert (tmp_path / "out" / "python.png").is_file()
    assert sorted(path.name for path in (tmp_path / "examples").iterdir()) == sorted(names)


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[name]):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("picture", sorted((ROOT / "docs" / "pictures").glob("*.*g*")), ids=str)
def test_pictures_are_shown_and_small(picture) -> None:
    shown = any(f"pictures/{picture.name})" in page for page in PAGES.values())
    assert shown and picture.stat().st_size < 300_000


def test_the_page_of_options_is_current(load_script) -> None:
    script = load_script("tools/cli_page.py")
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), "run tools/cli_page.py"
