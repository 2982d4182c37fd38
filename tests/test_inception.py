"""Inception V3 for FID: layer by layer and as a whole against PyTorch, and its file of weights."""

import hashlib
import itertools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from ibgan_jax.errors import UserError
from ibgan_jax.metrics import inception
from ibgan_jax.metrics.fid import fid
from ibgan_jax.networks import inception as network

torch = pytest.importorskip("torch")
F = torch.nn.functional
nhwc, nchw = (0, 2, 3, 1), (0, 3, 1, 2)


@pytest.fixture(scope="module")
def theirs():
    import torch_inception

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield torch_inception.network(0)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def path(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(theirs.state_dict(), path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture(scope="module")
def ours(path):
    return inception.load(path, sha256=None)


@pytest.fixture
def optimised():
    """Programs as users run them."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def features_of(net, images):
    """PyTorch's features [B, 2048] of images [B, H, W, 3] in [-1, 1]."""
    with torch.no_grad():
        return net(torch.from_numpy(np.array(images).transpose(nchw) / 2 + 0.5)).numpy()


def pictures(seed, count, contrast):
    """Patches of colour under noise, float32 [count, 32, 32, 3] in [-1, 1]."""
    rng = np.random.default_rng(seed)
    patches = rng.uniform(-1, 1, (count, 4, 4, 3)) * rng.uniform(0, contrast, (count, 1, 1, 1))
    noise = 0.1 * rng.normal(size=(count, 32, 32, 3))
    patches = np.kron(patches, np.ones((1, 8, 8, 1)))
    return np.clip(patches + noise, -1, 1).astype(np.float32)


class Pictures:
    """A data set of them."""

    name, size = "pictures", 2000

    def __init__(self):
        self.all = pictures(0, self.size, 1.0)

    def examples(self, indices):
        return self.all[indices]


def their_fid(real, generated):
    """As pytorch-fid has it, by the root of the covariances' product; of features [N, d]."""
    means = [x.mean(axis=0) for x in (real, generated)]
    covs = [np.cov(x, rowvar=False) for x in (real, generated)]
    root = scipy.linalg.sqrtm(covs[0] @ covs[1]).real
    return np.sum((means[0] - means[1]) ** 2) + np.trace(covs[0] + covs[1] - 2 * root)


# ------------------------------------------------------------------------------------ the network


@pytest.mark.parametrize("shape", [(64, 64), (32, 48), (299, 299), (300, 512), (7, 1000)])
def test_resizing_is_pytorchs(shape):
    x = np.random.default_rng(0).normal(size=(2, *shape, 3)).astype(np.float32)
    options = {"size": (299, 299), "mode": "bilinear", "align_corners": False}
    wanted = F.interpolate(torch.from_numpy(x.transpose(nchw)), **options).numpy()
    np.testing.assert_allclose(network.resized(jnp.asarray(x)), wanted.transpose(nhwc), atol=2e-5)


def test_pools_are_pytorchs():
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype(np.float32) - 3  # all below 0
    moved = torch.from_numpy(x.transpose(nchw))
    mean = F.avg_pool2d(moved, 3, 1, 1, count_include_pad=False).numpy().transpose(nhwc)
    largest = F.max_pool2d(moved, 3, 1, 1).numpy().transpose(nhwc)
    np.testing.assert_allclose(network.average_pool(jnp.asarray(x)), mean, rtol=1e-5)
    np.testing.assert_array_equal(network.max_pool(jnp.asarray(x)), largest)


def test_features_are_pytorchs(theirs, ours):
    images = pictures(3, 2, 1.0)
    wanted = features_of(theirs, images)
    found = np.asarray(ours[0](images))
    chex.assert_shape(found, (2, 2048))
    assert found.dtype == np.float32
    error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted - wanted.mean(axis=0))
    assert error < 1e-4


def test_grey_images_have_three_equal_channels():
    x = jnp.arange(8.0).reshape(2, 2, 2, 1)
    np.testing.assert_array_equal(network.as_colour(x), np.repeat(x, 3, axis=-1))


@pytest.mark.parametrize("shape", [(1, 8, 8, 2), (1, 8, 8, 4), (8, 8, 3)])
def test_images_of_other_channels(ours, shape):
    with pytest.raises(UserError, match=r"\[B, H, W, 1\] or \[B, H, W, 3\]; got"):
        ours[0](np.zeros(shape, np.float32))


@pytest.mark.slow
def test_fid_is_that_of_pytorchs_features(theirs, ours, optimised):
    """2,000 images on each side; some 40 minutes on two shared cores. SciPy warns that the product
    is singular, as covariances of fewer images than features are."""
    real, generated = Pictures(), pictures(1, 2000, 0.7)
    left = iter(generated)

    def generate(key, count):
        return np.stack(list(itertools.islice(left, count)))

    score = fid(ours[0], real, generate, jax.random.key(0), 2000, record=ours[1])
    features = [
        np.concatenate([features_of(theirs, part) for part in np.split(images, 40)])
        for images in (real.all, generated)
    ]
    wanted = their_fid(*(x.astype(np.float64) for x in features))
    assert abs(score.value / wanted - 1) < 1e-3


# --------------------------------------------------------------------------- the file of weights


def refusal(path, **options):
    with pytest.raises(UserError) as caught:
        inception.load(path, **options)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_the_record_says_which_weights(path, ours):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert ours[1]["protocol"] == "inception"
    assert ours[1]["sha256"] == digest
    assert inception.load(path, digest)[1] == ours[1]
    json.dumps(ours[1])


def test_only_the_published_file_is_taken_by_default(path):
    message = refusal(path)
    assert inception.PUBLISHED_SHA256 in message
    assert "github.com/mseitzer/pytorch-fid/releases" in message
    # The published name holds the first digits of the hash, as torch.hub checks it.
    assert inception.PUBLISHED_SHA256[:8] in inception.PUBLISHED


def test_a_file_that_is_not_there_or_no_file(tmp_path):
    assert "No such file" in refusal(tmp_path / "none.pth")
    assert "published at" in refusal(tmp_path)


def test_a_file_too_large(path, monkeypatch):
    monkeypatch.setattr(inception, "LARGEST", 1000)
    assert "too many" in refusal(path, sha256=None)


@pytest.fixture(scope="module")
def wanted():
    net = network.Inception()
    return jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


def test_all_weights_are_used_but_the_classes_and_counts(theirs, wanted):
    state = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    assert len(state) == 566  # as the published file has
    found = inception.variables_of(state, wanted, "x.pth")
    sizes = sum(leaf.size for leaf in jax.tree.leaves(found))
    unused = [n for n in state if n.startswith("fc.") or n.endswith("num_batches_tracked")]
    assert sizes == sum(x.size for x in state.values()) - sum(state[n].size for n in unused)
    for name in unused:
        del state[name]
    inception.variables_of(state, wanted, "x.pth")


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("Mixed_6c.branch7x7_2.conv.weight", None, "lacks Mixed_6c.branch7x7_2.conv.weight"),
        ("Mixed_7c.branch_pool.bn.running_var", None, "lacks Mixed_7c.branch_pool.bn.running_var"),
        ("Conv2d_1a_3x3.bn.bias", lambda x: x[:31], r"float32 \[31\], not float32 \[32\]"),
        ("Conv2d_1a_3x3.conv.weight", lambda x: x.transpose(2, 3, 1, 0), "not float32"),
        ("Conv2d_1a_3x3.conv.weight", lambda x: x.reshape(-1), "not float32"),
        ("Mixed_5b.branch1x1.bn.weight", lambda x: x.astype(np.float64), "is float64"),
        ("AuxLogits.conv0.conv.weight", lambda x: np.zeros(3), "holds 'AuxLogits"),
        ("num_batches_tracked", lambda x: np.zeros(3), "holds 'num_batches"),
        ("other.num_batches_tracked", lambda x: np.zeros(3), "holds 'other"),
    ],
)
def test_weights_of_another_network(theirs, wanted, name, change, said):
    state = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    if change is None:
        del state[name]
    else:
        state[name] = change(state.get(name))
    with pytest.raises(UserError, match=said) as caught:
        inception.variables_of(state, wanted, "x.pth")
    assert str(caught.value).startswith("x.pth is not of this network: ")
    assert "\n" not in str(caught.value)
