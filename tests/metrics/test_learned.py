"""Learned metrics: which there are, and how their weights come to this disk."""

import hashlib
import io
import re
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch
from hub_server import Fault, serve_hub
from safetensors.torch import load_file, save_file

from vdsr_cli.bench.report import COLUMNS
from vdsr_cli.errors import UsageError, WeightsError
from vdsr_cli.metrics import learned as bench_metrics
from vdsr_cli.metrics.backbones import BACKBONES
from vdsr_cli.metrics.learned import LEARNED, choose_metrics, load_learned
from vdsr_cli.weights import fetch
from vdsr_cli.weights.metrics import (
    MetricWeights,
    find_file,
    load_metric_weights,
    obtain_file,
)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A web server, and an empty cache that may be filled from it."""
    monkeypatch.setenv("VDSR_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fetch, "MAX_PAUSE_S", 0.01)
    with serve_hub() as server:
        yield server


def pickled(state: dict[str, torch.Tensor]) -> bytes:
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def publish(hub, name: str, filename: str, data: bytes, **facts: str) -> MetricWeights:
    return MetricWeights(
        name=name,
        summary="s",
        licence="MIT",
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        source=hub.put(filename, data),
        **facts,
    )


STATE = {"features.0.weight": torch.arange(4.0), "classifier.0.weight": torch.ones(3)}


def test_the_table_of_weights():
    table = load_metric_weights()
    assert {name for metric in LEARNED for name in metric.rows} == set(table)
    for row in table.values():
        assert re.fullmatch("[0-9a-f]{64}", row.sha256) and row.bytes > 0
        assert row.summary and row.licence
        assert (row.source or row.page).startswith("https://")
        stem = PurePosixPath(row.source or "").stem
        if tag := re.search(r"-([0-9a-f]{8})$", stem):
            assert row.sha256.startswith(tag[1]), "torchvision's names begin the hash"


def test_every_metric_has_its_column():
    assert {metric.key for metric in LEARNED} <= {column.key for column in COLUMNS}


def test_a_pickle_is_downloaded_once_and_only_what_is_needed_is_kept(hub):
    row = publish(hub, "net", "net-1.pth", pickled(STATE), keep="features.")
    assert find_file(row, None) is None
    path = obtain_file(row, None)
    assert path == row.entry.file and find_file(row, None) == path
    assert {k: v.tolist() for k, v in load_file(path).items()} == {
        "features.0.weight": [0, 1, 2, 3]
    }
    seen = len(hub.requests)
    assert obtain_file(row, None) == path and len(hub.requests) == seen
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert find_file(row, None) is None
    assert obtain_file(row, None) == path and find_file(row, None) == path
    path.unlink()
    assert find_file(row, None) is None
    assert obtain_file(row, None) == path and find_file(row, None) == path


def test_arrays_are_kept_too(hub):
    stream = io.BytesIO()
    np.savez(stream, mu=np.arange(3.0))
    row = publish(hub, "prior", "prior.npz", stream.getvalue())
    assert load_file(obtain_file(row, None))["mu"].tolist() == [0, 1, 2]


def test_another_file_is_refused_and_removed(hub):
    data = pickled(STATE)
    row = publish(hub, "net", "net.pth", data)
    hub.fail("/plain/net.pth", Fault(kind="flip"))
    with pytest.raises(WeightsError, match="refused and removed"):
        obtain_file(row, None)
    assert not [p for p in row.entry.folder.iterdir() if p.suffix != ".lock"]


def test_nothing_is_fetched_offline(hub, monkeypatch):
    row = publish(hub, "net", "net.pth", pickled(STATE))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match="offline"):
        obtain_file(row, None)
    assert not hub.requests


def test_a_folder_of_weights_goes_first(hub, tmp_path):
    row = publish(hub, "net", "net.pth", pickled(STATE))
    save_file({"a": torch.ones(1)}, tmp_path / "net.safetensors")
    assert obtain_file(row, tmp_path) == tmp_path / "net.safetensors"
    assert not hub.requests


def test_files_without_a_source_are_named_and_verified(tmp_path):
    text = b"svm"
    row = MetricWeights(
        name="allmodel",
        summary="s",
        licence="x",
        sha256=hashlib.sha256(text).hexdigest(),
        bytes=3,
        page="https://example.org",
    )
    with pytest.raises(WeightsError, match="allmodel is not on this disk") as caught:
        obtain_file(row, tmp_path)
    assert "https://example.org" in caught.value.hint
    (tmp_path / "below").mkdir()
    path = tmp_path / "below" / "allmodel"
    path.write_bytes(text)
    assert obtain_file(row, tmp_path) == path
    path.write_bytes(b"other")
    with pytest.raises(WeightsError, match="not the published file"):
        find_file(row, tmp_path)


def test_names_of_metrics():
    assert choose_metrics("all") == LEARNED and choose_metrics("none") == ()
    assert [m.key for m in choose_metrics("dists, lpips")] == ["lpips_alex", "dists"]
    with pytest.raises(UsageError, match="no metric 'lpps'") as caught:
        choose_metrics("dists,lpps")
    assert "lpips-vgg" in caught.value.hint


def alexnet_rows(hub) -> dict[str, MetricWeights]:
    """Published files of LPIPS on AlexNet."""
    backbone = BACKBONES["alex"]
    features = {f"features.{k}": v for k, v in backbone.build().state_dict().items()}
    heads = {
        f"lin{i}.model.1.weight": torch.ones(1, w, 1, 1) for i, w in enumerate(backbone.widths)
    }
    rows = [
        publish(hub, "alexnet", "alexnet.pth", pickled(features), keep="features."),
        publish(hub, "lpips-alex-heads", "alex.pth", pickled(heads)),
    ]
    return {row.name: row for row in rows}


def test_a_metric_is_made_of_several_downloads(hub, monkeypatch):
    rows = load_metric_weights() | alexnet_rows(hub)
    monkeypatch.setattr(bench_metrics, "load_metric_weights", lambda: rows)
    (metric,) = choose_metrics("lpips")
    assert list(load_learned(None, None).missing) == [m.key for m in LEARNED]
    assert not hub.requests
    learned = load_learned([metric], None)
    assert not learned.missing and list(learned.paired) == ["lpips_alex"]
    assert len([seen for seen in hub.requests if seen.method == "GET"]) == 2
