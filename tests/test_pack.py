"""Archives of runs: packed whole, unpacked as they were or not at all, hostile ones refused."""

import gzip
import hashlib
import io
import json
import shutil
import tarfile

import numpy as np
import pytest
import tiny

import launch
from ibgan_jax import pack, unpack
from ibgan_jax.errors import UserError
from ibgan_jax.training import manifest, weights
from ibgan_jax.training.workdir import Workdir

QUIET = {"log": lambda line: None}


@pytest.fixture
def population(finished, tmp_path):
    """A folder of three runs, of which one diverged before its first checkpoint."""
    home = Workdir(tmp_path / "population")
    for seed in (0, 1):
        shutil.copytree(finished, home.path / f"seed{seed}")
        member = Workdir(home.path / f"seed{seed}")
        record = member.recorded()
        record["config"]["seed"] = seed
        record["config"]["dataset"]["dir"] = "/elsewhere/data"
        member.write_json(member.config, record)
    lost = Workdir(home.path / "seed2")
    lost.create()
    lost.write_json(lost.config, {"config": tiny.config(seed=2).to_dict()})
    lost.write_json(lost.diverged, {"step": 3, "reason": "loss is nan at step 3"})
    home.write_json(home.study, record | {"config": {"name": "quickstart"}})
    return home.path


def names(path):
    return {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}


def test_packing_twice_gives_the_same_bytes(finished, archive, tmp_path):
    (again,) = pack.pack([finished], tmp_path / "other.tar.gz", **QUIET)
    assert again.read_bytes() == archive.read_bytes()
    with tarfile.open(again) as tar:
        assert all((m.mtime, m.uid, m.uname, m.gname) == (0, 0, "", "") for m in tar)
    # What was unpacked can be packed again.
    unpack.unpack([again], tmp_path / "out", **QUIET)
    (third,) = pack.pack([tmp_path / "out"], tmp_path / "third.tar.gz", **QUIET)
    assert third.read_bytes() == archive.read_bytes()


def test_what_of_a_run_travels(finished, archive):
    assert {name for name, _ in unpack.contents(archive)} == {
        *("config.json", "metrics.jsonl", "scores.json", "weights.npz"),
        *(f"figures/{path.name}" for path in (finished / "figures").glob("*.png")),
    }


def test_a_population_comes_back_as_one(population, tmp_path, small, capsys):
    (path,) = pack.pack([population], tmp_path / "all.tar.gz", **QUIET)
    out = tmp_path / "results/all"
    unpack.unpack([path], out, **QUIET)
    assert (out / "seed2/diverged.json").exists() and not (out / "seed2/weights.npz").exists()
    assert "/elsewhere" not in (out / "seed1/config.json").read_text()
    assert launch.main(["launch.py", "--mode=report", f"--pretrained={out}"]) == 0
    assert "seed2 diverged: loss is nan at step 3" in (out / "report.html").read_text()
    scored = ["--mode=evaluate", "--metrics=factor_vae,udr", f"--pretrained={out}"]
    assert launch.main(["launch.py", *scored]) == 0
    assert "| quickstart | dsprites | ibgan | 2 |" in capsys.readouterr().out
    assert len(json.loads((out / "selection.json").read_text())["members"]) == 2
    # Without its weights a run keeps its scores and its place in the table.
    (out / "seed1/weights.npz").unlink()
    assert launch.main(["launch.py", "--mode=report", f"--pretrained={out}"]) == 0
    assert launch.main(["launch.py", *scored[:1], "--metrics=factor_vae", scored[2]]) == 0
    printed = capsys.readouterr().out
    assert f"{out}/seed1 has scores and no weights: left out" in printed
    assert "| quickstart | dsprites | ibgan | 2 |" in printed


def test_a_run_without_a_checkpoint_is_left_out(population, tmp_path):
    shutil.rmtree(population / "seed1/checkpoints")
    lines = []
    (path,) = pack.pack([population], tmp_path / "x.tar.gz", log=lines.append)
    assert any("seed1 holds no checkpoint yet: left out" in line for line in lines)
    assert not any(name.startswith("seed1/") for name, _ in unpack.contents(path))
    shutil.rmtree(population / "seed0")
    with pytest.raises(UserError, match="none of these runs has a checkpoint"):
        pack.pack([population], tmp_path / "y.tar.gz", **QUIET)
    assert not (tmp_path / "y.tar.gz").exists()


def test_a_run_that_trains_can_be_packed(copy, tmp_path):
    (copy / "checkpoints/30").mkdir()  # being saved
    with (copy / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 2')
    with Workdir(copy).locked():
        (path,) = pack.pack([copy], tmp_path / "run.tar.gz", **QUIET)
    files = dict(unpack.contents(path))
    assert files["metrics.jsonl"].endswith(b"}\n")
    (tmp_path / "weights.npz").write_bytes(files["weights.npz"])
    assert weights.record(tmp_path / "weights.npz")["step"] == 24


def test_damaged_scores_stay_behind(copy, tmp_path):
    content = (copy / "scores.json").read_text()
    (copy / "scores.json").write_text(content.replace('"seed": 0', '"seed": 1'))
    lines = []
    (path,) = pack.pack([copy], tmp_path / "run.tar.gz", log=lines.append)
    assert any("scores.json is damaged" in line for line in lines)
    assert "scores.json" not in dict(unpack.contents(path))


def test_parts_hold_whole_runs_and_are_no_larger(population, tmp_path):
    for old in ("all-0.tar", "all-7.tar", "all-old.tar"):
        (tmp_path / old).touch()
    # Each run is some 0.8 MiB, most of it its pictures.
    parts = pack.pack([population], tmp_path / "all.tar.gz", part_mib=1, **QUIET)
    assert [path.name for path in parts] == ["all-0.tar", "all-1.tar"]
    assert {path.name for path in tmp_path.glob("*.tar")} == {
        "all-0.tar",
        "all-1.tar",
        "all-old.tar",
    }
    assert all(path.stat().st_size <= 2**20 for path in parts)
    held = [{name.split("/")[0] for name, _ in unpack.contents(path)} for path in parts]
    assert held == [{"study.json", "seed0"}, {"seed1", "seed2"}]
    whole = pack.pack([population], tmp_path / "all.tar.gz", part_mib=4, **QUIET)
    assert len(whole) == 1 and not (tmp_path / "all-1.tar").exists()
    content = dict(unpack.contents(whole[0]))
    for seed in (0, 1):  # larger alone than a part may be
        noise = np.random.default_rng(seed).bytes(2**20)
        (population / f"seed{seed}/figures/large.png").write_bytes(noise)
    with pytest.raises(UserError, match=r"seed0 alone makes 1\.\d MiB, more than --part_mib=1"):
        pack.pack([population], tmp_path / "all.tar.gz", part_mib=1, **QUIET)
    assert {"seed0/weights.npz", "seed1/weights.npz", "study.json"} <= content.keys()


def test_parts_come_back_as_one_folder(population, tmp_path):
    parts = pack.pack([population], tmp_path / "p", part_mib=1, **QUIET)
    (whole,) = pack.pack([population], tmp_path / "whole.tar.gz", **QUIET)
    unpack.unpack(parts, tmp_path / "a", **QUIET)
    unpack.unpack([whole], tmp_path / "b", **QUIET)
    assert names(tmp_path / "a") == names(tmp_path / "b")
    assert all(
        (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        for name in names(tmp_path / "a")
    )


def test_a_pack_that_is_cut_off_leaves_no_file(finished, tmp_path, monkeypatch):
    def cut(*_):
        raise KeyboardInterrupt

    (tmp_path / "run.tar.gz").write_bytes(b"the one before")
    monkeypatch.setattr(weights, "pack", cut)
    with pytest.raises(KeyboardInterrupt):
        pack.pack([finished], tmp_path / "run.tar.gz", **QUIET)
    with pytest.raises(KeyboardInterrupt):
        pack.pack([finished], tmp_path / "run", part_mib=5, **QUIET)
    assert names(tmp_path) == {"run.tar.gz"}
    assert (tmp_path / "run.tar.gz").read_bytes() == b"the one before"


def test_unpacking_again_changes_nothing_and_never_overwrites(archive, unpacked):
    before = {path: path.stat().st_mtime_ns for path in unpacked.rglob("*")}
    (unpacked / "weights.npz").unlink()
    assert unpack.unpack([archive], unpacked, **QUIET) == [unpacked / "weights.npz"]
    (unpacked / "weights.npz").unlink()
    (unpacked / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"config\.json is there and differs"):
        unpack.unpack([archive], unpacked, **QUIET)
    assert not (unpacked / "weights.npz").exists()
    assert before.keys() - {unpacked / "weights.npz"} == set(unpacked.rglob("*"))


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_damaged_archive_leaves_nothing(archive, tmp_path, place):
    whole = archive.read_bytes()
    flipped = bytearray(whole)
    flipped[int(place * len(whole))] ^= 4
    plain = bytearray(gzip.decompress(whole))
    plain[int(place * len(plain))] ^= 4
    for content in (flipped, whole[: int(place * len(whole))], plain):
        (tmp_path / "damaged").write_bytes(content)
        with pytest.raises(UserError, match="damaged"):
            unpack.unpack([tmp_path / "damaged"], tmp_path / "out", **QUIET)
        assert not (tmp_path / "out").exists()


def tar_of(path, *members):
    """An archive of (name, content or type) with a manifest that agrees; types are text."""
    with tarfile.open(path, "w") as tar:
        digests = {
            name: hashlib.sha256(x).hexdigest() for name, x in members if isinstance(x, bytes)
        }
        for name, content in ((manifest.NAME, manifest.listing(digests)), *members):
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content.encode(), "/etc/passwd"
                tar.addfile(info)
    return path


@pytest.mark.parametrize(
    ("members", "line"),
    [
        ([("../config.json", b"{}")], "names that lead elsewhere"),
        ([("/tmp/config.json", b"{}")], "names that lead elsewhere"),
        ([("a/../../config.json", b"{}")], "names that lead elsewhere"),
        ([("config.json", tarfile.SYMTYPE.decode())], "links"),
        ([("config.json", tarfile.LNKTYPE.decode())], "links"),
        ([("config.json", tarfile.FIFOTYPE.decode())], "devices"),
        ([("launch.py", b"print()")], "launch.py does not belong in it"),
        ([("config.json", b"{}"), ("config.json", b"{}")], "config.json does not belong in it"),
    ],
)
def test_hostile_archives_are_refused(tmp_path, members, line):
    path = tar_of(tmp_path / "hostile.tar", ("study.json", b"{}"), *members)
    with pytest.raises(UserError, match=line):
        unpack.unpack([path], tmp_path / "in/out", **QUIET)
    assert names(tmp_path) == {"hostile.tar"}


def test_a_link_in_the_way_is_not_followed(archive, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/figures").symlink_to(tmp_path)
    with pytest.raises(UserError, match="leads out of"):
        unpack.unpack([archive], tmp_path / "out", **QUIET)
    assert not list(tmp_path.glob("*.png"))


def test_archives_of_other_programs_and_of_two_runs(archive, population, tmp_path):
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.add(population / "study.json", "study.json")
    with pytest.raises(UserError, match=r"study\.json does not belong in it"):
        unpack.unpack([tmp_path / "other.tar"], tmp_path / "out", **QUIET)
    (second,) = pack.pack([population / "seed1"], tmp_path / "second.tar.gz", **QUIET)
    with pytest.raises(UserError, match=r"two of the archives hold another config\.json"):
        unpack.unpack([archive, second], tmp_path / "out", **QUIET)
    assert not (tmp_path / "out").exists()


def test_mistakes_are_one_line(finished, archive, tmp_path, capsys):
    def refused(program, *arguments):
        assert program.main([str(x) for x in arguments]) == 2
        out, error = capsys.readouterr()
        assert error.startswith("error: ") and error.count("\n") == 1 and out == ""
        return error

    out = f"--out={tmp_path / 'x.tar.gz'}"
    assert "--out" in refused(pack, finished)
    assert "must end in .tar.gz" in refused(pack, finished, "--out=x.zip")
    assert "--part_mib=0 must be 1 or more" in refused(pack, finished, out, "--part_mib=0")
    assert "holds no run" in refused(pack, tmp_path, out)
    assert "are called run" in refused(pack, finished, finished, out)
    assert "invalid int" in refused(pack, finished, out, "--part_mib=many")
    (tmp_path / "file").touch()
    assert "file" in refused(pack, finished, f"--out={tmp_path / 'file/x.tar.gz'}")
    assert "cannot be read" in refused(unpack, tmp_path / "none.tar", "--out=x")
    assert "is a folder" in refused(unpack, tmp_path, "--out=x")
    assert "file" in refused(unpack, archive, f"--out={tmp_path / 'file'}")
    assert "is no folder, .zip, .tar" in refused(unpack, finished / "config.json", "--out=x")
