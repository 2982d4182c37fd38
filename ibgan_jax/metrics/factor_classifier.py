"""Trains the network behind FID on dSprites to predict the true factors; saves and loads it.

    python -m ibgan_jax.metrics.factor_classifier --out=DIR [--dir=data] [--dataset=dsprites]
        [--steps=5000] [--batch_size=64] [--learning_rate=1e-3] [--seed=0] [--source=resident]

DIR then holds weights.npz (float32) and record.json: accuracy per factor on held-out images, data
set, settings, and the sha256 of weights.npz, which is the classifier's identity.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import math
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from ibgan_jax import __version__, data
from ibgan_jax.arguments import Parser, program
from ibgan_jax.data.dataset import Dataset
from ibgan_jax.data.order import Order
from ibgan_jax.errors import UserError, one_line
from ibgan_jax.metrics.encoding import BATCH_SIZE
from ibgan_jax.networks.factor_net import FactorNet

Log = Callable[[str], Any]

PROTOCOL = "factor_net"
WEIGHTS, RECORD = "weights.npz", "record.json"
HELD_OUT = 10_000  # images that training never sees, a tenth of the data set at most
STEPS_PER_DISPATCH = 50
LOG_POINTS = 20


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the network is trained.

    Attributes:
      steps: of Adam.
      batch_size: images a step.
      learning_rate: the first; it falls to 0 along half a cosine.
      seed: decides the first weights, the held-out images and the order of the others.
    """

    steps: int = 5000
    batch_size: int = 64
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises UserError naming a number that cannot serve."""
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be 1 or more")
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"learning_rate={self.learning_rate} must be above 0 and finite")


def train(
    dataset: Dataset, settings: Settings = Settings(), log: Log = print
) -> tuple[Any, dict[str, Any]]:
    """The network's parameters, and the record of what they are worth on held-out images.

    The loss is the sum over factors of the cross-entropy, in nats, averaged over the batch.

    Raises:
      UserError: the loss is not finite.
    """
    net = FactorNet(dataset.factor_sizes)
    optimizer = optax.adam(optax.cosine_decay_schedule(settings.learning_rate, settings.steps))
    params = net.init(jax.random.key(settings.seed), jnp.zeros((1, *dataset.image_shape)))
    held_out, shown = _parts(dataset.size, settings.seed)
    dispatch = _make_dispatch(net, optimizer, dataset)
    state, meter = (params, optimizer.init(params)), _Meter(settings.steps, log)
    for step, indices in _batches(shown, settings):
        labels = dataset.factors_of(indices)
        state, losses = dispatch(state, dataset.arrays, dataset.lookup(indices), labels)
        meter.at(step, losses)
    loss, accuracy = _evaluate(net, state[0], dataset, held_out)
    record = {
        "dataset": dataset.name,
        "image_shape": list(dataset.image_shape),
        "factor_names": list(dataset.factor_names),
        "factor_sizes": list(dataset.factor_sizes),
        "width": net.width,
        "settings": dataclasses.asdict(settings),
        "held_out": len(held_out),
        "loss": loss,
        "accuracy": accuracy,
        "made": f"ibgan_jax {__version__}, jax {jax.__version__}, {jax.devices()[0].device_kind}",
    }
    return state[0], record


def _parts(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the held-out images and of those to train on."""
    everything = Order(size, seed).indices(0, size)
    count = min(HELD_OUT, -(-size // 10))
    return everything[:count], everything[count:]


def _batches(shown: np.ndarray, settings: Settings) -> Iterator[tuple[int, np.ndarray]]:
    """(steps done after it, data set indices int [K, B]) of each dispatch."""
    order, images = Order(len(shown), settings.seed), settings.batch_size
    for first in range(0, settings.steps, STEPS_PER_DISPATCH):
        steps = min(STEPS_PER_DISPATCH, settings.steps - first)
        positions = order.indices(first * images, steps * images)
        yield first + steps, shown[positions].reshape(steps, images)


def _make_dispatch(
    net: FactorNet, optimizer: optax.GradientTransformation, dataset: Dataset
) -> Callable:
    """K steps in one dispatch: jitted (state, arrays, batches, labels) -> (state, losses [K]).

    `batches` is what the dataset's `lookup` gives for indices [K, B], labels are int [K, B, F]; the
    state, parameters and Adam's moments, is donated.
    """

    def steps(state: tuple, arrays: Any, batches: Any, labels: jax.Array) -> tuple:
        def body(state: tuple, batch: tuple) -> tuple:
            params, moments = state
            images, factors = dataset.decode(arrays, batch[0]), batch[1]

            def loss(params: Any) -> jax.Array:
                return jnp.mean(cross_entropy(net.apply(params, images)[1], factors))

            value, gradients = jax.value_and_grad(loss)(params)
            updates, moments = optimizer.update(gradients, moments)
            return (optax.apply_updates(params, updates), moments), value

        return jax.lax.scan(body, state, (batches, labels))

    return jax.jit(steps, donate_argnums=0)


def cross_entropy(logits: tuple[jax.Array, ...], factors: jax.Array) -> jax.Array:
    """Sum over factors of -log p(factor|x): logits [B, size] each, factors int [B, F] -> [B]."""
    return sum(
        optax.softmax_cross_entropy_with_integer_labels(head, factors[:, k])
        for k, head in enumerate(logits)
    )


def _evaluate(
    net: FactorNet, params: Any, dataset: Dataset, indices: np.ndarray
) -> tuple[float, dict[str, float]]:
    """Mean loss and accuracy of each factor over images of the data set."""

    @jax.jit
    def judge(params: Any, arrays: Any, batch: Any, factors: jax.Array) -> tuple:
        logits = net.apply(params, dataset.decode(arrays, batch))[1]
        right = [head.argmax(axis=-1) == factors[:, k] for k, head in enumerate(logits)]
        return cross_entropy(logits, factors), jnp.stack(right, axis=-1)

    parts = (indices[start : start + BATCH_SIZE] for start in range(0, len(indices), BATCH_SIZE))
    judged = [
        judge(params, dataset.arrays, dataset.lookup(p), dataset.factors_of(p)) for p in parts
    ]
    losses, right = map(np.concatenate, zip(*judged, strict=True))
    accuracy = dict(zip(dataset.factor_names, right.mean(axis=0).tolist(), strict=True))
    return float(losses.mean()), accuracy


class _Meter:
    """Fetches the losses a few times in a run and says how far it is."""

    def __init__(self, steps: int, log: Log) -> None:
        self._steps, self._log = steps, log
        self._pending: list[jax.Array] = []
        self._next, self._start = 1.0, time.monotonic()

    def at(self, step: int, losses: jax.Array) -> None:
        """Raises UserError when a loss is not finite."""
        self._pending.append(losses)
        if step < min(self._next, self._steps):
            return
        loss = float(np.mean(np.concatenate(jax.device_get(self._pending))))
        if not math.isfinite(loss):
            raise UserError(f"the loss is {loss} by step {step}; try a smaller learning_rate")
        rate = step / (time.monotonic() - self._start)
        speed = f"{rate:.3g} steps/s  {(self._steps - step) / rate:.0f} s left"
        self._log(f"step {step}/{self._steps}  loss {loss:.4f}  {speed}")
        self._pending, self._next = [], step + self._steps / LOG_POINTS


def save(path: str | Path, params: Any, record: dict[str, Any]) -> dict[str, Any]:
    """Writes weights.npz and record.json into the folder `path`; returns the record with `sha256`.

    Raises:
      UserError: the folder holds a classifier already or cannot be written.
    """
    flat = traverse_util.flatten_dict(params["params"], sep="/")
    packed = io.BytesIO()
    np.savez_compressed(packed, **{k: np.asarray(v, np.float32) for k, v in flat.items()})
    record = {**record, "sha256": hashlib.sha256(packed.getvalue()).hexdigest()}
    # The record last: weights without one are only what an interruption left.
    _write(Path(path), WEIGHTS, packed.getvalue())
    _write(Path(path), RECORD, json.dumps(record, indent=2).encode() + b"\n")
    return record


def _write(folder: Path, name: str, content: bytes) -> None:
    """Raises UserError when the folder holds a classifier already or cannot be written."""
    if (folder / RECORD).exists():
        raise UserError(f"{folder} already holds a classifier; choose another --out or remove it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}); choose another") from error


def load(path: str | Path) -> tuple[Callable[[jax.Array], jax.Array], dict[str, Any]]:
    """(features_of: images [B, H, W, C] in [-1, 1] -> features [B, width], the record) of a folder.

    The record has FID's `protocol` beside what `save` wrote.

    Raises:
      UserError: a file is missing or damaged; later, the images are not of the network's shape.
    """
    folder = Path(path)
    try:
        record = json.loads((folder / RECORD).read_text())
        packed = (folder / WEIGHTS).read_bytes()
        if hashlib.sha256(packed).hexdigest() != record["sha256"]:
            raise ValueError(f"{WEIGHTS} is not the file that {RECORD} is about")
        shape = tuple(record["image_shape"])
        net = FactorNet(tuple(record["factor_sizes"]), record["width"])
        wanted = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, *shape)))
        with np.load(io.BytesIO(packed)) as arrays:
            params = traverse_util.unflatten_dict(dict(arrays), sep="/")
        if jax.tree.map(np.shape, {"params": params}) != jax.tree.map(np.shape, wanted):
            raise ValueError(f"{WEIGHTS} does not fit the network of {RECORD}")
    except FileNotFoundError as error:
        raise UserError(
            f"{folder} holds no classifier: {Path(error.filename).name} is missing; train one: "
            f"python -m {__name__} --out={folder}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{folder} is damaged ({one_line(error)}); put back a copy or train anew"
        ) from error
    apply, params = jax.jit(lambda p, x: net.apply({"params": p}, x)[0]), jax.device_put(params)

    def features_of(images: jax.Array) -> jax.Array:
        if np.shape(images)[1:] != shape:
            raise UserError(f"{folder} is for images {shape}; got {np.shape(images)[1:]}")
        return apply(params, images)

    return features_of, {"protocol": PROTOCOL, **record}


def _labelled() -> list[str]:
    return [name for name in data.NAMES if data.has_factors(name)]


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(prog=f"python -m {__spec__.name}", allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, help="folder to be made")
    parser.add_argument("--dir", type=Path, default=Path("data"), help="where the images are kept")
    parser.add_argument("--dataset", default="dsprites", help=", ".join(_labelled()))
    parser.add_argument("--source", default="resident", help=", ".join(data.SOURCES))
    for field in dataclasses.fields(Settings):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    return parser.parse_args(argv)


@program
def main(argv: list[str], log: Log = print) -> None:
    """Trains and saves the network that the arguments describe."""
    given = _parse(argv)
    settings = Settings(*(getattr(given, f.name) for f in dataclasses.fields(Settings)))
    data.check(given.dataset, given.source)
    if not data.has_factors(given.dataset):
        known = ", ".join(_labelled())
        raise UserError(f"--dataset={given.dataset} has no factors to learn; choose {known}")
    _write(given.out, WEIGHTS, b"")  # found out now, not after the training
    dataset = data.load(given.dataset, given.source, given.dir.expanduser(), log=log)
    record = save(given.out, *train(dataset, settings, log))
    shares = "  ".join(f"{name} {share:.4f}" for name, share in record["accuracy"].items())
    log(f"{given.out}: accuracy on {record['held_out']} held-out images: {shares}")


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # a log file or pipe has each line at once
    sys.exit(main(sys.argv[1:]))
