"""Any values of any options: a documented exit code, and one line where it is not 0."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

DOCUMENTED = {0, 2, 3, 4, 5, 6}
WORDS = st.sampled_from(
    ["", "auto", "cpu", "cuda", "nan", "inf", "-inf", "1e999", "-", "--", "0x10"]
)
ANYTHING = st.one_of(
    WORDS,
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(repr),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12),
    st.just("9" * 5000),
)
SENSIBLE = st.sampled_from(["0", "1", "4", "16", "32", "0.5", "2", "8", "png", "jpg", "mean"])
VALUES = st.one_of(ANYTHING, SENSIBLE)

OPTIONS = {
    "upscale": [
        "--scale", "--temperature", "--seed", "--tile", "--overlap", "--batch-size", "--device",
        "--dtype", "--pixels", "--format", "--quality", "--max-pixels", "--model",
    ],
    "sample-diverse": [
        "--samples", "--seed", "--temperature", "--scale", "--tile", "--overlap", "--format",
    ],
    "generate": ["-n", "--seed", "--temperature", "--size", "--format"],
    "bench": ["--temperatures", "--seeds", "--samples", "--scale", "--metrics", "--worst"],
}  # fmt: skip
FLAGS = ["--wrap", "--json", "--quiet", "--no-consistency", "--overwrite", "--skip-existing"]


@pytest.fixture
def photo(tmp_path, save_picture):
    return save_picture(tmp_path / "photo.png", 5, 4)


def chosen(command: str) -> st.SearchStrategy[list[str]]:
    """Some options of a command with values of any kind, and flags."""
    pairs = st.tuples(st.sampled_from(OPTIONS[command]), VALUES).map(list)
    flags = st.sampled_from(FLAGS).map(lambda flag: [flag])
    given_options = st.lists(st.one_of(pairs, pairs, flags), min_size=1, max_size=4)
    return given_options.map(lambda groups: [word for group in groups for word in group])


@given(st.data())
def test_upscale(vdsr, photo, tmp_path, tiny_path, data):
    words = data.draw(chosen("upscale"))
    if "--model" not in words:
        words += ["--model", str(tiny_path)]
    check(vdsr("upscale", photo, *words, "-o", tmp_path / "out.png"))


@pytest.mark.parametrize("command", ["sample-diverse", "bench"])
def test_dry_runs_and_refusals(vdsr, photo, tmp_path, tiny_path, command):
    """These refuse before any work; accepted options are not carried out here."""
    stop = {"sample-diverse": ["--dry-run"], "bench": ["--device", "cuda"]}[command]

    @given(chosen(command))
    def any_options(words):
        check(vdsr(command, photo, "--model", tiny_path, *words, *stop))

    any_options()


def check(ended) -> None:
    assert ended.code in DOCUMENTED, ended
    assert "Traceback" not in ended.err
    if ended.code > 2:
        assert ended.lines[0].startswith("vdsr: ") or ended.lines[-1].startswith("vdsr: "), ended


@given(st.lists(VALUES, max_size=5))
def test_any_words(vdsr, monkeypatch, tmp_path, words):
    """Words in any order, of which hardly any is a command."""
    monkeypatch.chdir(tmp_path)
    names = ["upscale", "weights", "info", "path", "--dry-run", "-n"]
    ended = vdsr(*(names[i % 6] if len(word) == 1 else word for i, word in enumerate(words)))
    assert ended.code in DOCUMENTED and "Traceback" not in ended.err
