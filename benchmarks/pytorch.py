"""The IB-GAN dSprites step in PyTorch, written for speed: what ours is measured against.

channels_last, everything expensive computed once, no gradient that nobody reads, RMSprop over all
parameters of a player at once. The networks are those of the authors' code. It runs where its
images lie, on a CPU or a GPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

Z, R, BETA = 16, 10, 0.141
RATES = {"encoder": 5e-5, "generator": 5e-5, "reconstructor": 5e-5, "discriminator": 1e-6}


def _blocks(d: int) -> list[nn.Module]:
    """64 x 64 -> 1 x 1 with 16 d channels."""
    layers: list[nn.Module] = []
    inputs = 1
    geometry = (
        (d, 4, 2, 1),
        (2 * d, 4, 2, 1),
        (4 * d, 4, 2, 1),
        (8 * d, 3, 1, 1),
        (16 * d, 8, 1, 0),
    )
    for i, (width, size, stride, pad) in enumerate(geometry):
        layers.append(nn.Conv2d(inputs, width, size, stride, pad, bias=i == 0))
        if i:
            layers.append(nn.BatchNorm2d(width))
        layers.append(nn.LeakyReLU(0.2, inplace=True))
        inputs = width
    return layers


def players(width: int) -> dict[str, nn.Module]:
    """The four networks with g = d = width."""
    g = d = width
    encoder = nn.Sequential(
        nn.Linear(Z, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2 * R)
    )
    layers: list[nn.Module] = []
    inputs = R
    for features in (16 * g, 4 * g * 64):
        layers += [nn.Linear(inputs, features), nn.BatchNorm1d(features), nn.ReLU(inplace=True)]
        inputs = features
    layers.append(nn.Unflatten(1, (4 * g, 8, 8)))
    inputs = 4 * g
    for features, size, stride in ((4 * g, 3, 1), (4 * g, 3, 1), (2 * g, 4, 2), (g, 4, 2)):
        layers.append(nn.ConvTranspose2d(inputs, features, size, stride, 1, bias=False))
        layers += [nn.BatchNorm2d(features), nn.ReLU(inplace=True)]
        inputs = features
    generator = nn.Sequential(*layers, nn.ConvTranspose2d(inputs, 1, 4, 2, 1), nn.Tanh())
    hidden = [nn.Conv2d(16 * d, 16 * d, 1), nn.BatchNorm2d(16 * d), nn.LeakyReLU(0.2)]
    reconstructor = nn.Sequential(*_blocks(d), *hidden, nn.Conv2d(16 * d, Z, 1), nn.Flatten())
    discriminator = nn.Sequential(*_blocks(d), nn.Conv2d(16 * d, 1, 1), nn.Flatten())
    return dict(zip(RATES, (encoder, generator, reconstructor, discriminator), strict=True))


def make_step(
    width: int,
    images: torch.Tensor,
    threads: int,
    bfloat16: bool,
    tf32: bool = False,
    compiled: bool = False,
    captured: bool = False,
) -> Callable[[], None]:
    """A function that makes one update of all four players on images [B, 1, 64, 64] in [-1, 1].

    Args:
      width: g = d.
      images: on the device that the step runs on.
      threads: of a CPU.
      bfloat16: the forward passes run under autocast.
      tf32: a GPU rounds the factors of float32 products.
      compiled: `torch.compile` makes each network.
      captured: the whole step becomes one CUDA graph, which the function replays.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    device = images.device
    networks = {
        name: net.to(device, memory_format=torch.channels_last)
        for name, net in players(width).items()
    }
    parameters = {name: list(net.parameters()) for name, net in networks.items()}
    if compiled:
        # D's graph of generated images is gone through twice, which the default forbids.
        torch._functorch.config.donated_buffer = False
        networks = {name: torch.compile(net) for name, net in networks.items()}
    e, g, q, d = networks.values()
    settings = {"momentum": 0.9, "foreach": True, "capturable": captured}
    optimizers = [
        torch.optim.RMSprop(parameters[name], rate, 0.99, 1e-8, **settings)
        for name, rate in RATES.items()
    ]
    images = images.contiguous(memory_format=torch.channels_last)
    batch, level = len(images), 1.0
    ones, zeros = torch.ones(batch, 1, device=device), torch.zeros(batch, 1, device=device)
    bce = nn.functional.binary_cross_entropy_with_logits

    def noisy(x: torch.Tensor) -> torch.Tensor:
        return (x + level * torch.randn_like(x)).clamp(-1, 1)

    def step() -> None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            z = torch.randn(batch, Z, device=device)
            mean, log_variance = e(z).chunk(2, 1)
            kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean()
            generated = noisy(g(mean + (0.5 * log_variance).exp() * torch.randn_like(mean)))
            real = noisy(images)
            logits, z_mean, real_logits = d(generated), q(generated), d(real)
            with torch.no_grad():
                q(real)  # for its running statistics
            loss = bce(logits, ones) + 0.5 * ((z - z_mean) ** 2).sum(1).mean() + BETA * kl
            loss_d = bce(logits, zeros) + bce(real_logits, ones)
        of_d = torch.autograd.grad(loss_d, parameters["discriminator"], retain_graph=True)
        others = [p for name in list(RATES)[:3] for p in parameters[name]]
        of_others = torch.autograd.grad(loss, others)
        for p, gradient in zip(
            [*others, *parameters["discriminator"]], [*of_others, *of_d], strict=True
        ):
            p.grad = gradient
        for optimizer in optimizers:
            optimizer.step()

    return _captured(step) if captured else step


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    """The step as a CUDA graph: all that it launches, launched at once."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # what is allocated or chosen at first use cannot be captured
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
