"""Rows of weights.toml."""

import pytest

from vdsr_cli import weights
from vdsr_cli.errors import WeightsError
from vdsr_cli.weights import cache, records
from vdsr_cli.weights.metrics import load_metric_weights
from vdsr_cli.weights.records import did_you_mean
from vdsr_cli.weights.sources import Bundled


def test_every_row_is_sound():
    records = weights.load_records()
    assert next(iter(records)) == "vdvae-sr-x4"
    published = {name for name in records if name.startswith("openai/")}
    seeds = {f"openai/cifar10-seed{seed}" for seed in range(4)}
    assert published == seeds | {
        f"openai/{name}" for name in ("ffhq256", "imagenet64", "imagenet32", "ffhq1024")
    }
    for name in published:
        assert records[name].source.endswith("-model-ema.th")
        assert records[name].architecture == "openai-vdvae"
        assert records[name].config
        assert records[name].scores


def test_every_row_is_of_a_network_that_can_be_built():
    from vdsr_cli.models.registry import ARCHITECTURES
    from vdsr_cli.models.vdvae_config import PUBLISHED

    for record in weights.load_records().values():
        assert record.architecture in ARCHITECTURES
        assert record.config is None or record.config in PUBLISHED


@pytest.mark.parametrize("record", weights.load_records().values(), ids=lambda r: r.name)
def test_bundled_files_are_the_published_ones(record):
    if not isinstance(record.location, Bundled):
        assert record.sha256 or record.trust_on_first_use
        return
    path = weights.locate(record)
    if path is None:
        pytest.skip(f"{record.source} is not bundled yet")
    assert record.sha256 == cache.hash_file(path)
    assert record.bytes == path.stat().st_size
    assert weights.read_header(path).architecture == record.architecture
    assert record.scores or record.scale is None, "what upscales has figures"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("source = 'hf://a/b@main/f.safetensors'\nsha256 = '{0}'", "pin its revision"),
        ("source = 'https://a/f.safetensors'", "has no sha256"),
        ("source = 'https://a/f.safetensors'\nsha256 = 'ABC'", "malformed sha256"),
        ("source = 'http://example.org/f'\nsha256 = '{0}'", "https only"),
        ("source = 'f.safetensors'\ncolour = 'red'", "unknown key 'colour'"),
        ("source = 'f.safetensors'\nscale = 0", "impossible scale"),
        ("source = 'f.safetensors'\nscale = '4'", "'m'"),
        ("source = '../f.safetensors'", "bundled"),
        ("", "source"),
        ("source = ", "Invalid value"),
    ],
)
def test_unsound_rows_are_refused(tmp_path, row, problem):
    common = "architecture = 'a'\nsummary = 's'\nlicence = 'MIT'\n"
    table = tmp_path / "weights.toml"
    table.write_text(f"[models.m]\n{common}{row.format('0' * 64)}\n")
    with pytest.raises(WeightsError, match=problem):
        weights.load_records(table)


def test_a_missing_table_is_one_line(tmp_path):
    with pytest.raises(WeightsError, match="cannot read the table"):
        weights.load_records(tmp_path / "none.toml")


@pytest.mark.parametrize("typed", ["ffhq256", "openai/ffhq-256", "FFHQ256", "openai/ffqh256"])
def test_the_nearest_name_is_offered(typed):
    assert "'openai/ffhq256'" in did_you_mean(typed, weights.load_records())
    with pytest.raises(WeightsError) as caught:
        weights.find_record(typed)
    assert "openai/ffhq256" in caught.value.hint


def test_the_table_is_parsed_once(monkeypatch):
    for cached in (records.read_table, weights.load_records, load_metric_weights):
        cached.cache_clear()
    parsed = []
    parse = records.tomllib.loads
    monkeypatch.setattr(records.tomllib, "loads", lambda text: parsed.append(1) or parse(text))
    for _ in range(2):
        assert weights.load_records() and load_metric_weights()
        weights.resolve("vdvae-sr-x4-tiny")
    assert len(parsed) == 1
