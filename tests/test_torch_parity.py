"""Five updates of IB-GAN written in PyTorch, from the same weights and random numbers (float64)."""

from collections import Counter
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import optimised
from double import double_precision
from equation_11 import draws, scattered

from ibgan_jax.models.ibgan import DEFAULT_HPARAMS, IBGAN
from ibgan_jax.training.state import TrainState
from ibgan_jax.training.step import train_step

torch = pytest.importorskip("torch")
nn = torch.nn

BATCH, UPDATES, Z, R, WIDTH = 4, 5, 4, 3, 4
ROWS = 8  # the generator's first image is 8 x 8
STRIDED = ((4, 2, 1), (4, 2, 1), (4, 2, 1))
RATES = {"encoder": 1e-3, "generator": 5e-4, "reconstructor": 2e-3, "discriminator": 1e-4}
NUMBERS = {
    **{f"lr_{player}": rate for player, rate in RATES.items()},
    "beta": 0.3,
    "noise_start": 1.0,
    "noise_end": 0.2,
    "noise_steps": 4.0,
    "label_low": 0.7,
    "label_high": 1.2,
}


@pytest.fixture(scope="module", autouse=True)
def double():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # JAX's own are waiting beside
    with double_precision():
        yield
    torch.set_num_threads(threads)


# --- The networks in PyTorch, as flat lists of layers (NCHW)


def convolutions(inputs, widths, geometry, first_normalised):
    layers = []
    for i, (width, (size, stride, pad)) in enumerate(zip(widths, geometry, strict=True)):
        normalised = i > 0 or first_normalised
        layers.append(nn.Conv2d(inputs, width, size, stride, pad, bias=not normalised))
        if normalised:
            layers.append(nn.BatchNorm2d(width))
        layers.append(nn.LeakyReLU(0.2))
        inputs = width
    return layers


def encoder():
    widths, layers = (Z, 6, 5), []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 2 * R))


def generator():
    g, layers, inputs = WIDTH, [], R
    for width in (16 * g, 4 * g * ROWS**2):
        layers += [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU()]
        inputs = width
    layers.append(nn.Unflatten(1, (4 * g, ROWS, ROWS)))
    inputs = 4 * g
    for width, size, stride in ((4 * g, 3, 1), (4 * g, 3, 1), (2 * g, 4, 2), (g, 4, 2)):
        layers.append(nn.ConvTranspose2d(inputs, width, size, stride, 1, bias=False))
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.ConvTranspose2d(inputs, 1, 4, 2, 1), nn.Tanh())


def front(shared):
    """What D and q share: nothing, or three blocks."""
    widths = (WIDTH, 2 * WIDTH, 4 * WIDTH)
    return nn.Sequential(*(convolutions(1, widths, STRIDED, False) if shared else ()))


def head(shared, outputs, hidden):
    d = WIDTH
    if shared:
        geometry, hidden = ((3, 1, 1), (3, 1, 1), (8, 1, 0)), False
        blocks = convolutions(4 * d, (4 * d, 4 * d, 16 * d), geometry, True)
    else:
        geometry = (*STRIDED, (3, 1, 1), (8, 1, 0))
        blocks = convolutions(1, (d, 2 * d, 4 * d, 8 * d, 16 * d), geometry, False)
    between = [nn.Conv2d(16 * d, 16 * d, 1), nn.BatchNorm2d(16 * d), nn.LeakyReLU(0.2)]
    last = [*(between if hidden else ()), nn.Conv2d(16 * d, outputs, 1), nn.Flatten()]
    return nn.Sequential(nn.Sequential(*blocks), nn.Sequential(*last))


class Networks:
    """The four players, their optimizers and one update of all by Eq. 11."""

    def __init__(self, shared, momentum):
        self.e, self.g, self.front = encoder(), generator(), front(shared)
        self.q, self.d = head(shared, Z, True), head(shared, 1, False)
        owned = zip(RATES, ([self.e], [self.g], [self.q], [self.front, self.d]), strict=True)
        self.players = {player: nn.ModuleList(parts).double() for player, parts in owned}
        self.parameters = {p: list(m.parameters()) for p, m in self.players.items()}
        self.optimizers = {
            player: torch.optim.RMSprop(parameters, RATES[player], 0.99, 1e-8, momentum=momentum)
            for player, parameters in self.parameters.items()
        }

    def update(self, images, z, eps, noise_generated, noise_real, labels, level):
        mean, log_variance = self.e(z).chunk(2, dim=1)
        posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
        kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
        x = self.g(mean + posterior.stddev * eps)
        features = self.front((x + level * noise_generated).clamp(-1, 1))
        logits, z_mean = self.d(features), self.q(features)
        real_features = self.front((images + level * noise_real).clamp(-1, 1))
        real_logits = self.d(real_features)
        self.q(real_features)  # for its running statistics

        bce = nn.functional.binary_cross_entropy_with_logits
        reconstruction = 0.5 * ((z - z_mean) ** 2).sum(1).mean()
        bottleneck = NUMBERS["beta"] * kl.sum(1).mean()
        loss_geq = bce(logits, torch.ones_like(logits)) + reconstruction + bottleneck
        loss_d = bce(logits, torch.zeros_like(logits)) + bce(real_logits[:, 0], labels)
        gradients = {
            player: torch.autograd.grad(
                loss_d if player == "discriminator" else loss_geq, parameters, retain_graph=True
            )
            for player, parameters in self.parameters.items()
        }
        for player, optimizer in self.optimizers.items():
            for parameter, gradient in zip(self.parameters[player], gradients[player], strict=True):
                parameter.grad = gradient
            optimizer.step()

    def represent(self, images):
        return self.e(self.q(self.front(images)))[:, :R]


# --- The same numbers as Flax names and lays them out

KINDS = {
    nn.Linear: "Dense",
    nn.Conv2d: "Conv",
    nn.ConvTranspose2d: "ConvTranspose",
    nn.BatchNorm1d: "BatchNorm",
    nn.BatchNorm2d: "BatchNorm",
}
NAMES = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}


def torch_layout(x, kind, name):
    """Flax's array as PyTorch lays it out: kernels [out, in, ...], channels before rows."""
    if x.shape[-1] == 4 * WIDTH * ROWS**2:
        x = np.moveaxis(x.reshape(*x.shape[:-1], ROWS, ROWS, -1), -1, -3).reshape(x.shape)
    if kind == "BatchNorm" or name == "bias":
        return x
    return x.T if kind == "Dense" else x.transpose(3, 2, 0, 1)


def leaves(networks):
    """(layer, attribute, player, collection, path in Flax, kind) of every number."""
    scopes = [
        ("encoder", (), networks.e),
        ("generator", (), networks.g),
        ("reconstructor", ("ConvBlocks_0",), networks.q[0]),
        ("reconstructor", (), networks.q[1]),
        ("discriminator", ("front",), networks.front),
        ("discriminator", ("head", "ConvBlocks_0"), networks.d[0]),
        ("discriminator", ("head",), networks.d[1]),
    ]
    for player, scope, layers in scopes:
        counts = Counter()
        for layer in layers:
            if (kind := KINDS.get(type(layer))) is None:
                continue
            path = (*scope, f"{kind}_{counts[kind]}")
            counts[kind] += 1
            for attribute, name in NAMES.items():
                if getattr(layer, attribute, None) is None:
                    continue
                if attribute == "weight" and kind != "BatchNorm":
                    name = "kernel"
                collection = "params" if name in ("kernel", "scale", "bias") else "batch_stats"
                yield layer, attribute, player, collection, (*path, name), kind


def in_torch(variables, player, collection, path, kind):
    leaf = variables[player][collection]
    for name in path:
        leaf = leaf[name]
    return torch.from_numpy(torch_layout(np.asarray(leaf), kind, path[-1]).copy())


def load(networks, variables):
    count = 0
    for layer, attribute, *where in leaves(networks):
        tensor, value = getattr(layer, attribute), in_torch(variables, *where)
        assert tensor.shape == value.shape and tensor.dtype == value.dtype
        with torch.no_grad():
            tensor.copy_(value)
        count += 1
    assert count == len(jax.tree.leaves(variables))


# --- The test


def biased_variance(layer, before, values):
    """PyTorch's running variance averages n / (n - 1) times the batch's variance, Flax's that."""
    kept = 0.9 ** int(layer.num_batches_tracked) * before
    return kept + (layer.running_var - kept) * (values - 1) / values


def count_values(networks):
    """{BatchNorm layer: values of each channel in a batch}, filled by the forward passes."""
    counts = {}

    def count(layer, inputs, _):
        counts[layer] = inputs[0].numel() // layer.num_features

    for module in networks.players.values():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                layer.register_forward_hook(count)
    return counts


def relative(actual, expected):
    return float((actual - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    ("shared", "momentum"), [(False, 0.9), (True, 0.0)], ids=["own trunks", "shared front"]
)
def test_five_updates_equal_pytorch(shared, momentum):
    model = IBGAN(
        z_dim=Z,
        r_dim=R,
        generator_width=WIDTH,
        discriminator_width=WIDTH,
        encoder_hidden=(6, 5),
        shared_front=shared,
    )
    numbers = {**DEFAULT_HPARAMS, **NUMBERS, "momentum": momentum}
    hparams = {k: jnp.asarray(v, jnp.float64) for k, v in numbers.items()}
    before = scattered(jax.eval_shape(model.init, jax.random.key(0)), 1)
    params, stats = ({p: v[c] for p, v in before.items()} for c in ("params", "batch_stats"))
    optimizer = {p: t.init(params[p]) for p, t in model.optimizers(hparams).items()}
    root = jax.random.key(3)
    state = TrainState(jnp.zeros((), jnp.int32), root, params, stats, optimizer)

    networks = Networks(shared, momentum)
    load(networks, before)
    values = count_values(networks)
    batches = np.random.default_rng(4).uniform(-1.0, 1.0, (UPDATES, BATCH, *model.image_shape))
    step = optimised(jax.jit(partial(train_step, model)), state, jnp.asarray(batches[0]), hparams)
    for i, images in enumerate(batches):
        state, _ = step(state, jnp.asarray(images), hparams)
        z, eps, *noises, uniform = (
            torch.from_numpy(np.array(x)) for x in draws(jax.random.fold_in(root, i), model, BATCH)
        )
        noises = [x.permute(0, 3, 1, 2) for x in (torch.from_numpy(images), *noises)]
        images, *noises = noises
        level = 1.0 + (0.2 - 1.0) * min((i + 1) / 4, 1)
        networks.update(images, z, eps, *noises, 0.7 + 0.5 * uniform, level)

    for layer, attribute, *where in leaves(networks):
        actual = in_torch(state.variables, *where)
        if attribute == "running_var":
            old = in_torch(before, *where)
            layer.running_var.copy_(biased_variance(layer, old, values[layer]))
        error = relative(actual, getattr(layer, attribute).detach())
        assert error <= 1e-7, f"{where}: {error}"
        if attribute == "weight":  # unlike a bias in front of a BatchNorm, it has moved
            assert relative(actual, in_torch(before, *where)) > 1e-5

    for module in networks.players.values():
        module.eval()
    codes = np.random.default_rng(5).normal(size=(BATCH, R))
    with torch.no_grad():
        made = networks.g(torch.from_numpy(codes)).permute(0, 2, 3, 1).numpy()
        represented = networks.represent(images).numpy()
    actual = jax.jit(model.generate)(state.variables, jnp.asarray(codes))
    np.testing.assert_allclose(actual, made, rtol=1e-7, atol=1e-9)
    actual = jax.jit(model.represent)(state.variables, jnp.asarray(batches[-1]))
    np.testing.assert_allclose(actual, represented, rtol=1e-7, atol=1e-9)
