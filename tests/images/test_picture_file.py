"""Pictures that are written while their rows arrive: formats, cuts, journals, failures."""

import io
import json
import os
import stat
import struct
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import EXIF_IFD, GPS_IFD, LENS, SRGB, exif_block, random_levels, read
from PIL import Image

from vdsr_cli.errors import OutputError, OutputExistsError
from vdsr_cli.images import Frame, Metadata, encode_levels, open_picture_file, read_picture
from vdsr_cli.images.png import PngCoder, combined_adler
from vdsr_cli.images.resumable import open_draft

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
KINDS = [(c, d) for c in (1, 2, 3, 4) for d in (np.uint8, np.uint16)]


def full_metadata(channels: int, dtype) -> Metadata:
    return Metadata(
        bit_depth=8 * np.dtype(dtype).itemsize,
        is_grey=channels < 3,
        icc_profile=SRGB if channels > 2 else None,
        exif=exif_block().tobytes(),
        xmp=XMP,
        dpi=(300.0, 200.0),
    )


def frame_of(levels, like: Metadata) -> Frame:
    height, width, channels = levels.shape
    return Frame(height=height, width=width, like=like, has_alpha=channels in (2, 4))


def rows_of(levels, top: int, bottom: int):
    """Some rows as ``put_rows`` takes them, which come out as they were."""
    values = torch.from_numpy(levels[top:bottom].astype(np.float64) / np.iinfo(levels.dtype).max)
    planes = values.permute(2, 0, 1)
    if levels.shape[2] in (1, 3):
        return top, planes.expand(3, -1, -1)
    cover = planes[-1:]
    return top, (planes[:-1] * cover).expand(3, -1, -1), cover


def write(
    path: Path,
    levels,
    like: Metadata,
    cuts=(),
    *,
    identity="same",
    stop=None,
    on_row=lambda row: None,
    **options,
):
    """Writes levels, cut at some rows, each of which is told; from row ``stop`` on it fails."""
    options = {"every_s": 1e9, **options, "identity": lambda: identity}
    options["format"] = {".png": "png", ".tif": "tiff"}[path.suffix]
    with open_picture_file(path, frame_of(levels, like), **options) as file:
        edges = [file.next_row, *(c for c in cuts if c > file.next_row), levels.shape[0]]
        for top, bottom in pairwise(edges):
            if stop is not None and top >= stop:
                raise KeyboardInterrupt
            on_row(top)
            file.put_rows(*rows_of(levels, top, bottom))
    return file


@pytest.fixture(params=[1, 700, 1 << 20])
def segment_bytes(request, monkeypatch):
    monkeypatch.setattr("vdsr_cli.images.segments._SEGMENT_BYTES", request.param)


@pytest.mark.parametrize(("channels", "dtype"), KINDS)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_however_rows_arrive_the_file_is_the_same(tmp_path, channels, dtype, suffix, segment_bytes):
    levels = random_levels(channels, dtype)
    like = full_metadata(channels, dtype)
    at_once = io.BytesIO()
    encode_levels(at_once, levels, format={".png": "png", ".tif": "tiff"}[suffix], like=like)
    for index, cuts in enumerate([(), (1,), (3, 4, 10), range(11)]):
        path = tmp_path / f"{index}{suffix}"
        assert write(path, levels, like, cuts).notes == ()
        assert path.read_bytes() == at_once.getvalue()
    again = read_picture(path)
    assert again.metadata.exif is not None and again.metadata.xmp == XMP
    assert again.metadata.icc_profile == like.icc_profile
    assert again.metadata.dpi == pytest.approx((300, 200), abs=0.02)
    full = np.iinfo(dtype).max
    rgb = again.rgb[0].permute(1, 2, 0).numpy() * full
    cover = levels[:, :, -1:] / full if channels in (2, 4) else 1.0
    assert np.abs(rgb - levels[:, :, : channels - (channels in (2, 4))] * cover).max() < 0.02


@pytest.mark.parametrize(("channels", "dtype"), KINDS)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_however_many_threads_encode_the_file_is_the_same(tmp_path, channels, dtype, suffix):
    levels = random_levels(channels, dtype, (3000, 400))
    like = full_metadata(channels, dtype)
    one, four = tmp_path / f"one{suffix}", tmp_path / f"four{suffix}"
    write(one, levels, like, range(0, 3000, 700))
    write(four, levels, like, range(0, 3000, 700), threads=4)
    assert four.read_bytes() == one.read_bytes()


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("failing", [0, 7, 14])
def test_a_segment_that_fails_fails_the_file(
    tmp_path, monkeypatch, small_segments, threads, failing
):
    encoded, top = PngCoder.encoded, 3 * failing

    def fail_at_one(self, levels):
        if np.array_equal(levels, LEVELS[top : top + 3]):
            raise MemoryError("of one segment")
        return encoded(self, levels)

    monkeypatch.setattr(PngCoder, "encoded", fail_at_one)
    with pytest.raises(MemoryError, match="of one segment"):
        write(tmp_path / "a.png", LEVELS, Metadata(), CUTS, threads=threads)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [0, 1, 5551, 70_000, 99_999, 100_000])
@pytest.mark.parametrize("fill", [0, 255, None])
def test_checksums_of_pieces_make_that_of_the_whole(cut, fill):
    data = np.random.default_rng(0).bytes(100_000) if fill is None else bytes([fill]) * 100_000
    pieces = zlib.adler32(data[:cut]), zlib.adler32(data[cut:])
    assert combined_adler(*pieces, len(data) - cut) == zlib.adler32(data)


def test_segments_of_a_png_are_one_stream(tmp_path, monkeypatch):
    """Read without Pillow: the chunks in order, their checksums, one zlib stream of all rows."""
    monkeypatch.setattr("vdsr_cli.images.segments._SEGMENT_BYTES", 200)
    levels = random_levels(3)
    write(tmp_path / "a.png", levels, Metadata())
    data, kinds, stream = (tmp_path / "a.png").read_bytes()[8:], [], b""
    while data:
        (size,) = struct.unpack(">I", data[:4])
        kind, body = data[4:8], data[8 : 8 + size]
        assert struct.unpack(">I", data[8 + size : 12 + size]) == (zlib.crc32(kind + body),)
        kinds.append(kind)
        stream += body if kind == b"IDAT" else b""
        data = data[12 + size :]
    assert kinds == [b"IHDR", *[b"IDAT"] * (1 + 4 + 1), b"IEND"]
    rows = np.frombuffer(zlib.decompress(stream), np.uint8).reshape(11, 1 + 17 * 3)
    assert (rows[:, 0] == [1, 3, 3, 1, 3, 3, 1, 3, 3, 1, 3]).all()


def test_cutting_a_photograph_costs_next_to_nothing(monkeypatch):
    with Image.open(Path(__file__).parents[2] / "examples" / "photo.png") as photo:
        levels = np.asarray(photo.convert("RGB"))

    def size(segment_bytes: int, format: str) -> int:
        monkeypatch.setattr("vdsr_cli.images.segments._SEGMENT_BYTES", segment_bytes)
        stream = io.BytesIO()
        encode_levels(stream, levels, format=format)
        return stream.tell()

    for format in ("png", "tiff"):
        assert size(levels.nbytes // 10, format) < 1.01 * size(1 << 30, format)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_no_tiff_holds_becomes_a_bigtiff(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr("vdsr_cli.images.segments._SEGMENT_BYTES", 300)
    levels, like = random_levels(3, dtype, (40, 60)), full_metadata(3, dtype)
    write(tmp_path / "small.tif", levels, like)
    small = (tmp_path / "small.tif").stat().st_size
    headers = {}
    for longest in (small - 1, small, 2 * small):
        monkeypatch.setattr("vdsr_cli.images.tiff._LONGEST_FILE_BYTES", longest)
        path = tmp_path / f"{longest}.tif"
        write(path, levels, like)
        headers[longest] = path.read_bytes()[:4]
        picture = read_picture(path)
        assert np.array_equal(
            (picture.rgb[0].permute(1, 2, 0).numpy() * np.iinfo(dtype).max).round(), levels
        )
        assert picture.metadata.icc_profile == SRGB and picture.metadata.xmp == XMP
        with Image.open(path) as image:
            image.load()
            assert image.getexif().get_ifd(EXIF_IFD)[LENS] == "Lens 50"
            assert image.getexif().get_ifd(GPS_IFD)[1] == "N"
    assert headers[small - 1] == b"II+\0" and headers[2 * small] == b"MM\0*"


def test_a_tiff_that_deflates_below_the_limit_is_no_bigtiff(tmp_path, monkeypatch):
    monkeypatch.setattr("vdsr_cli.images.tiff._LONGEST_FILE_BYTES", 5000)
    write(tmp_path / "flat.tif", np.zeros((100, 100, 3), np.uint8), Metadata())
    assert (tmp_path / "flat.tif").read_bytes()[:4] == b"II*\0"
    assert not read_picture(tmp_path / "flat.tif").rgb.any()


# Journals

CUTS = range(0, 44, 4)
LEVELS = random_levels(3, np.uint8, (44, 68))


@pytest.fixture
def small_segments(monkeypatch):
    monkeypatch.setattr("vdsr_cli.images.segments._SEGMENT_BYTES", 68 * 3 * 3)


def interrupted(path: Path, stop: int, **options) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(path, LEVELS, Metadata(), CUTS, stop=stop, every_s=0, **options)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("stop", [4, 20, 40])
def test_an_interrupted_file_is_gone_on_with(tmp_path, small_segments, suffix, stop):
    path, whole = tmp_path / f"a{suffix}", tmp_path / f"whole{suffix}"
    write(whole, LEVELS, Metadata())
    interrupted(path, stop)
    names = {f"a{suffix}.part", f"a{suffix}.part.json", whole.name}
    assert {p.name for p in tmp_path.iterdir()} == names
    # Bytes behind those that the journal vouches for, as a kill leaves them.
    with (tmp_path / f"a{suffix}.part").open("ab") as part:
        part.write(b"half a segment")
    file = write(path, LEVELS, Metadata(), CUTS)
    assert file.notes == (f"continued an earlier run from row {stop // 3 * 3} of 44",)
    assert path.read_bytes() == whole.read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {path.name, whole.name}


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_threads_journal_what_is_in_the_file_alone(tmp_path, small_segments, suffix):
    path, whole = tmp_path / f"a{suffix}", tmp_path / f"whole{suffix}"
    write(whole, LEVELS, Metadata())
    interrupted(path, 40, threads=4)
    file = write(path, LEVELS, Metadata(), CUTS, threads=4)
    # 13 segments of 3 rows are full, of which 2 * (4 - 1) may still be ahead.
    assert file.notes == ("continued an earlier run from row 21 of 44",)
    assert path.read_bytes() == whole.read_bytes()


def test_what_is_done_soon_leaves_nothing_behind(tmp_path, small_segments):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.png", LEVELS, Metadata(), CUTS, stop=20, every_s=60)
    assert list(tmp_path.iterdir()) == []


def spoil_journal(tmp_path):
    (tmp_path / "a.png.part.json").write_text('{"vdsr": "journal", "of"')


def flip_a_bit_of_the_part(tmp_path):
    part = tmp_path / "a.png.part"
    content = bytearray(part.read_bytes())
    content[300] ^= 1
    part.write_bytes(content)


def changed_journal(**facts):
    def change(tmp_path):
        journal = tmp_path / "a.png.part.json"
        journal.write_text(json.dumps({**json.loads(journal.read_text()), **facts}))

    return change


def spoil_part(tmp_path):
    part = tmp_path / "a.png.part"
    part.write_bytes(part.read_bytes()[:100])


def lose_part(tmp_path):
    (tmp_path / "a.png.part").unlink()


SPOILS = [
    spoil_journal,
    spoil_part,
    lose_part,
    flip_a_bit_of_the_part,
    changed_journal(state=None),
    changed_journal(state={"rows": "many", "adler": 1}),
    changed_journal(bytes="many"),
    changed_journal(bytes=-1),
    changed_journal(sha256=None),
    None,
]


@pytest.mark.parametrize("spoil", SPOILS)
def test_what_cannot_be_gone_on_with_is_discarded(tmp_path, small_segments, spoil):
    path = tmp_path / "a.png"
    interrupted(path, 20)
    if spoil is not None:
        spoil(tmp_path)
    file = write(path, LEVELS[::-1], Metadata(), CUTS, identity="same" if spoil else "other")
    assert len(file.notes) == 1 and "discarded" in file.notes[0]
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), LEVELS[::-1])
    assert list(tmp_path.iterdir()) == [path]


def test_the_journal_vouches_for_bytes_that_are_on_the_disk(tmp_path, monkeypatch, small_segments):
    """Every journal is written behind an fsync of all that it counts."""
    events = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor):
        real_fsync(descriptor)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            events.append(os.fstat(descriptor).st_size)

    def replace(self, target):
        if target.name.endswith(".json"):
            events.append(json.loads(self.read_text())["bytes"])
            assert events[-1] == events[-3], "part synced, journal synced, journal renamed"
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write(tmp_path / "a.png", LEVELS, Metadata(), CUTS, every_s=0)
    assert len(events) > 20


def test_two_runs_do_not_write_one_output(tmp_path, small_segments):
    pytest.importorskip("fcntl")
    frame = frame_of(LEVELS, Metadata())
    path, same = tmp_path / "a.png", {"format": "png", "identity": lambda: "same"}
    with open_picture_file(path, frame, **same) as file:
        with (
            pytest.raises(OutputError, match=r"a\.png: another run is writing it"),
            open_picture_file(path, frame, **same),
        ):
            pass
        file.put_rows(*rows_of(LEVELS, 0, 44))
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), LEVELS)


def test_a_full_disk_keeps_what_is_journaled(tmp_path, monkeypatch, small_segments):
    path = tmp_path / "a.png"
    interrupted(path, 20)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("vdsr_cli.images.resumable.Draft.append", full)
        with pytest.raises(OutputError, match="no space is left") as caught:
            write(path, LEVELS, Metadata(), CUTS)
    assert str(caught.value).startswith(f"{path}: cannot be written")
    assert "resumes" in (caught.value.hint or "")
    assert not path.exists()
    assert write(path, LEVELS, Metadata(), CUTS).notes[0].startswith("continued")


def test_rows_come_in_order_and_complete(tmp_path):
    for puts in ([(0, 4), (8, 12)], [(4, 8)], [(0, 4), (0, 4)], [(0, 43)]):
        with (
            pytest.raises(ValueError, match=r"next|never put"),
            open_picture_file(
                tmp_path / "a.png",
                frame_of(LEVELS, Metadata()),
                format="png",
                identity=lambda: "same",
            ) as file,
        ):
            for top, bottom in puts:
                file.put_rows(*rows_of(LEVELS, top, bottom))
        assert list(tmp_path.iterdir()) == []


def test_links_modes_and_folders(tmp_path):
    target, link = tmp_path / "target.png", tmp_path / "link.png"
    target.write_bytes(b"old")
    target.chmod(0o604)
    link.symlink_to(target)
    before = os.umask(0o027)
    try:
        write(link, LEVELS, Metadata())
        write(tmp_path / "new.png", LEVELS, Metadata())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.png").stat().st_mode) == 0o640
    assert link.is_symlink() and read(target.read_bytes()).width == 68
    assert stat.S_IMODE(target.stat().st_mode) == 0o604, "that of the file replaced"
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match="it is a folder"):
        write(tmp_path / "folder.png", LEVELS, Metadata())
    write(tmp_path / "new" / "er" / "a.png", LEVELS, Metadata())
    assert (tmp_path / "new" / "er" / "a.png").is_file()


def test_an_identity_is_not_asked_for_in_vain(tmp_path):
    def identity():
        raise AssertionError

    head = b"x" * 100
    with open_draft(tmp_path / "a", identity) as draft:
        draft.leave_head(len(head))
        draft.append(b"all")
        draft.checkpoint(dict)
        draft.commit(head)
    assert (tmp_path / "a").read_bytes() == head + b"all"


# What is in the way


def a_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def a_second_name(path: Path, victim: Path) -> None:
    os.link(victim, path)


def a_file(path: Path, victim: Path) -> None:
    path.write_bytes(victim.read_bytes())


def a_pipe(path: Path, victim: Path) -> None:
    os.mkfifo(path)


def a_folder(path: Path, victim: Path) -> None:
    path.mkdir()


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="links and pipes of POSIX")
@pytest.mark.parametrize("make", [a_link, a_second_name, a_file, a_pipe, a_folder])
@pytest.mark.parametrize("name", ["a.png.part", "a.png.part.json"])
def test_what_is_not_ours_is_left_alone(tmp_path, small_segments, make, name):
    victim, taken = tmp_path / "victim", tmp_path / name
    victim.write_bytes(b"of somebody else, and longer than our own mark")
    make(taken, victim)
    before = taken.lstat()
    with pytest.raises(OutputError, match=rf"{name} is in the way"):
        write(tmp_path / "a.png", LEVELS, Metadata(), CUTS, every_s=0)
    assert victim.read_bytes() == b"of somebody else, and longer than our own mark"
    assert os.path.samestat(taken.lstat(), before) and taken.lstat().st_size == before.st_size
    assert {path.name for path in tmp_path.iterdir()} == {"victim", name}


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="links and pipes of POSIX")
def test_a_dangling_link_is_not_followed(tmp_path):
    (tmp_path / "a.png.part").symlink_to(tmp_path / "none")
    with pytest.raises(OutputError, match="in the way"):
        write(tmp_path / "a.png", LEVELS, Metadata())
    assert [path.name for path in tmp_path.iterdir()] == ["a.png.part"]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path, small_segments):
    path = tmp_path / "a.png"

    def appear(row: int) -> None:
        if row == 20:
            path.write_bytes(b"another")

    with pytest.raises(OutputExistsError, match=r"a\.png has appeared meanwhile and is kept"):
        write(path, LEVELS, Metadata(), CUTS, on_row=appear, replace=False, every_s=0)
    assert path.read_bytes() == b"another"
    path.unlink()
    file = write(path, LEVELS, Metadata(), CUTS)
    assert file.notes[0].startswith("continued"), "what was done is not lost where it is journaled"
    assert list(tmp_path.iterdir()) == [path]
