"""Addresses of weights."""

import pytest

from vdsr_cli.errors import WeightsError
from vdsr_cli.weights.sources import Hub, Web, parse_source


def test_addresses_are_read():
    commit = "0" * 40
    assert parse_source(f"hf://o/r@{commit}/a/b.safetensors") == Hub(
        repo_id="o/r", revision=commit, filename="a/b.safetensors"
    )
    assert parse_source("hf://o/r/b.safetensors") == Hub(repo_id="o/r", filename="b.safetensors")
    assert parse_source("hf://o/r@refs%2Fpr%2F1/b.bin").revision == "refs/pr/1"
    assert parse_source(f"https://h/f.th#sha256={'A' * 64}") == Web(
        url="https://h/f.th", sha256="a" * 64
    )
    assert parse_source("http://127.0.0.1:80/f") == Web(url="http://127.0.0.1:80/f")


@pytest.mark.parametrize(
    "text",
    [
        "hf://owner/file",
        "hf://o/r/../x",
        "hf://o/r/a//b",
        "hf://o/r@/f",
        "hf://o/r/a\\b",
        "http://example.org/f",
        "http://127.0.0.1.example.org/f",
        "https://user:secret@example.org/f",
        "https://",
        "https://[::1/f",
        "https://example.org/a b",
        "https://example.org/f\r\nX: y",
        "https://example.org/f#sha256=12",
        "https://example.org/f#md5=12",
        "",
        "..",
        "a/b",
    ],
)
def test_everything_else_is_refused(text):
    with pytest.raises(WeightsError):
        parse_source(text)
