"""What holds for every test, and what several files share because it takes long."""

import gc
import os
import shutil

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_num_cpu_devices", 4)
# Compiling is most of the suite's time, and few programs run so often that optimising them pays.
jax.config.update("jax_disable_most_optimizations", True)
# Tracing makes many objects and hardly any cycles: by default a fifth of it is collecting garbage.
gc.set_threshold(100_000)
# Where other programs run too, a first example takes longer than Hypothesis would allow.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


def pytest_collection_finish():
    gc.freeze()


@pytest.fixture(scope="session")
def full_directory(tmp_path_factory):
    """A data directory that holds the whole rendered dSprites."""
    from ibgan_jax.data import packed

    directory = tmp_path_factory.mktemp("full") / "data"
    packed.load_packed(directory, log=lambda line: None)
    return directory


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """A directory of compiled programs: whoever trains the small run compiles it only once."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # the same for every worker
    (base / "compiled").mkdir(exist_ok=True)
    return base / "compiled"


@pytest.fixture
def small(compiled):
    """Lets `ibgan_jax` train the small run of tiny.py."""
    import tiny

    with tiny.quick(compiled):
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory, compiled):
    """The workdir of an uninterrupted small run; tests change copies of it."""
    import tiny

    path = tmp_path_factory.mktemp("finished") / "run"
    with tiny.quick(compiled):
        tiny.train(path)
    return path


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of `finished` to change."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture(scope="session")
def archive(finished, tmp_path_factory):
    """The small run, packed."""
    from ibgan_jax import pack

    path = tmp_path_factory.mktemp("packed") / "run.tar.gz"
    assert pack.main([str(finished), f"--out={path}"]) == 0
    return path


@pytest.fixture
def unpacked(archive, tmp_path):
    """The small run as it comes out of its archive."""
    from ibgan_jax import unpack

    unpack.unpack([archive], tmp_path / "elsewhere", log=lambda line: None)
    return tmp_path / "elsewhere"


@pytest.fixture
def few(monkeypatch):
    """Sets of images are prepared in parts of three, so that there are several."""
    from ibgan_jax.data import image_parts

    monkeypatch.setattr(image_parts, "PART_IMAGES", 3)
