"""Folders and archives of any origin: the same files from all kinds, and nothing else."""

import io
import os
import struct
import tarfile
import zipfile
from collections import Counter

import archives as miniature
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibgan_jax.data import archives, entry, tar
from ibgan_jax.errors import UserError

FILES = [("set/b.png", b"second"), ("set/a.png", b""), ("set/deep/c.png", bytes(range(256)) * 9)]


def everything(name):
    del name
    return True


def contents(path, wanted=everything):
    """({name: bytes}, what was left out) of an archive all of whose files can be read."""
    left_out = Counter()
    found = list(archives.entries(path, wanted, left_out))
    assert not [item.problem for item in found if item.problem]
    assert all(0 < item.done <= 1 for item in found)
    return {item.name: item.data for item in found}, left_out


def make(folder, kind, files=FILES):
    if kind == "folder":
        for name, data in files:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder / "set"
    if kind == "zip":
        return miniature.write_zip(folder / "set.zip", files)
    return miniature.write_tar(folder / "set.tar", files, "w:gz" if kind == "tgz" else "w")


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tgz"])
def test_all_kinds_hold_the_same(tmp_path, kind):
    path = make(tmp_path, kind)
    assert contents(path) == (dict(FILES), Counter())
    asked = []
    found, _ = contents(path, lambda name: asked.append(name) or name.endswith("c.png"))
    assert list(found) == ["set/deep/c.png"]
    assert sorted(asked) == sorted(dict(FILES))


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_tar_as_tarfile_reads_it(tmp_path, form):
    names = ["short", "é/ü", "x" * 90 + "/" + "y" * 60]
    if form != tarfile.USTAR_FORMAT:
        names += ["long/" * 60 + "name", "é" * 130]
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=form) as archive:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 500 * number, 1.5
            archive.addfile(info, io.BytesIO(bytes([number]) * info.size))
    with tarfile.open(path) as archive:
        wanted = {info.name: archive.extractfile(info).read() for info in archive}
    assert contents(path)[0] == wanted
    assert list(wanted) == names


@given(st.lists(st.tuples(st.text("ab/._\\\0é:", max_size=9), st.binary(max_size=600)), max_size=5))
@settings(max_examples=40)
def test_names_never_lead_elsewhere(files):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    for name, _ in files:
        safe = entry.safe_name(name)
        assert safe is None or os.path.normpath(f"/root/{safe}") == f"/root/{safe}"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a//b/./c", "a/b/c"),
        ("./a", "a"),
        ("a\\b", "a/b"),
        ("../a", None),
        ("a/../../b", None),
        ("/etc/passwd", None),
        ("\\\\host\\share", None),
        ("C:\\a", None),
        ("a\0b", None),
        ("", None),
        ("x" * 5000, None),
    ],
)
def test_safe_name(name, safe):
    assert entry.safe_name(name) == safe


def hostile_tar(path):
    with tarfile.open(path, "w") as archive:
        for name, kind in [
            ("set/link", tarfile.SYMTYPE),
            ("set/hard", tarfile.LNKTYPE),
            ("set/pipe", tarfile.FIFOTYPE),
            ("set/disk", tarfile.BLKTYPE),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "../../secret"
            archive.addfile(info)
        for name in ["../up.png", "/abs.png", "set/good.png"]:
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"data"))
    return path


def hostile_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in ["../up.png", "/abs.png", "set/good.png"]:
            archive.writestr(name, b"data")
        for name, mode in [("set/link", 0o120777), ("set/hard", 0o120777)]:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, "../../secret")
        for name, mode in [("set/pipe", 0o010644), ("set/disk", 0o060644)]:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, b"")
    return path


@pytest.mark.parametrize("make_hostile", [hostile_tar, hostile_zip])
def test_links_devices_and_odd_names_are_left_out(tmp_path, monkeypatch, make_hostile):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    found, left_out = contents(make_hostile(tmp_path / "archive"))
    assert found == {"set/good.png": b"data"}
    assert left_out == {"links": 2, "devices": 2, "names that lead elsewhere": 2}
    assert sorted(os.listdir(tmp_path)) == ["archive", "here"]
    assert os.listdir(tmp_path / "here") == []


def test_a_name_that_is_nothing(tmp_path):
    path = miniature.write_zip(tmp_path / "a.zip", [("Xname", b"data"), ("good", b"data")])
    path.write_bytes(path.read_bytes().replace(b"Xname", b"\0name"))
    assert contents(path) == ({"good": b"data"}, {"names that lead elsewhere": 1})


def test_links_and_pipes_in_a_folder_are_left_out(tmp_path):
    folder = make(tmp_path, "folder")
    (folder / "link.png").symlink_to("/etc/passwd")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")
    assert contents(folder) == (dict(FILES), Counter(links=2, devices=1))


def test_a_file_that_becomes_a_pipe(tmp_path):
    folder = make(tmp_path, "folder")

    def swap(name):
        if name.endswith("a.png"):
            (folder / "a.png").unlink()
            os.mkfifo(folder / "a.png")
        return True

    found = {item.name: item for item in archives.entries(folder, swap, Counter())}
    assert found["set/a.png"].data is None
    assert found["set/b.png"].data == b"second"


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tgz"])
def test_a_file_too_large_is_a_problem_of_its_own(tmp_path, monkeypatch, kind):
    for module in (archives, tar):
        monkeypatch.setattr(module, "MAX_ENTRY_BYTES", 1000)
    found = list(archives.entries(make(tmp_path, kind), everything, Counter()))
    problems = {item.name: item.problem for item in found if item.data is None}
    assert list(problems) == ["set/deep/c.png"]
    assert "2,304 bytes" in problems["set/deep/c.png"]
    assert len(found) == 3


@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_bombs(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(entry, "_FREE_BYTES", 2**20)
    path = make(tmp_path, kind, [(f"{i}.png", bytes(8 * 2**20)) for i in range(4)])
    assert path.stat().st_size < 50_000
    with pytest.raises(UserError, match="decompresses to more than 250 times"):
        list(archives.entries(path, lambda name: False, Counter()))


def test_a_bomb_of_overlapping_entries(tmp_path):
    path = miniature.write_zip(tmp_path / "a.zip", [("a.png", os.urandom(1000))])
    data = path.read_bytes()
    start = data.index(b"PK\1\2")
    directory = data[start : data.index(b"PK\5\6")]
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 50, 50, 50 * len(directory), start, 0)
    path.write_bytes(data[:start] + directory * 50 + end)
    with pytest.raises(UserError, match="overlap"):
        list(archives.entries(path, everything, Counter()))


def test_methods_that_cannot_be_bounded_are_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.png", bytes(10**6))
    (found,) = archives.entries(path, everything, Counter())
    assert (found.data, found.problem) == (None, "a compression other than deflate")


def test_a_header_without_end(tmp_path):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**33
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(UserError, match=r"damaged.*8,589,934,592 bytes"):
        list(archives.entries(path, everything, Counter()))


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
def test_cut_short(tmp_path, kind):
    files = [(f"set/{i}.png", os.urandom(300 * i)) for i in range(8)]
    path = make(tmp_path, kind, files)
    whole = path.read_bytes()
    # Behind the first of the blocks that end a .tar nothing is missing.
    blocks = sum(1 + -(-300 * i // 512) for i in range(8)) + 1
    end = len(whole) if kind != "tar" else 512 * (blocks + 1)
    for length in {*range(1, end, 397), end - 600, end - 512, end - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(UserError) as caught:
            list(archives.entries(path, everything, Counter()))
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_a_flipped_bit_is_noticed(tmp_path, kind):
    """Never other bytes under a name that was in the archive."""
    files = {f"set/{i}.png": os.urandom(200) for i in range(3)}
    path = make(tmp_path, kind, list(files.items()))
    whole = path.read_bytes()
    for place in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            found = list(archives.entries(path, everything, Counter()))
        except UserError:
            continue
        for item in found:
            assert item.data is None or item.data == files.get(item.name, item.data)


def test_what_is_no_archive(tmp_path):
    path = tmp_path / "img_align_celeba.zip"
    path.write_bytes(b"<!DOCTYPE html><html>Quota exceeded\x1b[31m")
    with pytest.raises(UserError, match=r"no folder, .zip, .tar or .tgz: .*DOCTYPE") as caught:
        archives.entries(path, everything, Counter())
    assert str(caught.value).isprintable()
    with pytest.raises(UserError, match="cannot be read"):
        archives.entries(tmp_path / "none.zip", everything, Counter())


def test_names_in_messages_cannot_command_a_terminal():
    assert entry.shown("a\x1b[2J\nb\udcff") == "a\\x1b[2J\\nb\\udcff"
    assert len(entry.shown("x" * 1000)) == 100
