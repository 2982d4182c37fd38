"""Pictures of images and matrices, and the look that every figure shares.

Every file is written under a temporary name and renamed, so that a reader never meets half a
picture. matplotlib is imported inside the functions (it takes half a second) and drawn on with its
object interface, so that the caller's backend and settings stay as they are.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: A dimension whose KL to the prior stays under this many nats carries nothing.
ACTIVE_NATS = 0.05

INK, GREY, PALE, ACCENT = "#222222", "#6f6f6f", "#d9d9d9", "#D55E00"
# Paul Tol's "muted" scheme: told apart with every common colour blindness (its sand is left out).
PALETTE = ("#332288", "#CC6677", "#117733", "#AA4499", "#44AA99", "#882255", "#999933", "#88CCEE")
LOOK = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#ececec",
    "grid.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
DPI = 150
# The outline of a cell of unit size around its middle: x, then y.
BOX = np.array([[-0.47, 0.47, 0.47, -0.47, -0.47], [-0.46, -0.46, 0.46, 0.46, -0.46]])
# How zlib writes a PNG.
SMALL, QUICK = {"optimize": True}, {"compress_level": 1}
RULE = 128  # the grey between the images of a grid
BETWEEN = 8  # pixels between a starting image and its traversals, and between two blocks of them


# ---------------------------------------------------------------------------------------- files


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yields a name beside `path`; what is written there replaces `path` when the block ends."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def canvas(path: str | Path, width: float, height: float) -> Iterator[Figure]:
    """Yields a figure of `width` x `height` inches and writes it to `path` as PNG."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(width, height), dpi=DPI)
        FigureCanvasAgg(figure)
        yield figure
        with atomic(path) as temporary:
            figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})


def save_png(path: str | Path, image: np.ndarray, scale: int = 1, quick: bool = False) -> None:
    """Writes `image`, uint8 [H, W], [H, W, 1] or [H, W, 3], each pixel a `scale` x `scale` block.

    `quick` takes 2 ms instead of 20, where there is noise 20 instead of 270; the file then has
    11 KiB instead of 6, where there is noise 5 to 10 % more.

    Raises ValueError for another type or shape.
    """
    from PIL import Image

    image = np.asarray(image)
    if image.dtype != np.uint8:
        raise ValueError(f"a PNG is written from uint8, not {image.dtype}")
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if image.ndim != 2 and image.shape[2:] != (3,):
        raise ValueError(f"a PNG is [H, W], [H, W, 1] or [H, W, 3], not {image.shape}")
    image = image.repeat(scale, axis=0).repeat(scale, axis=1)
    with atomic(path) as temporary:
        Image.fromarray(image).save(temporary, format="png", **(QUICK if quick else SMALL))


# ---------------------------------------------------------------------------------------- grids


def tile(images: np.ndarray, columns: int, pad: int = 2) -> np.ndarray:
    """Lays images [N, H, W, C] in [-1, 1] out in a grid, row by row: uint8 [H', W', C].

    `pad` pixels of mid-grey part neighbours; places left over in the last row are mid-grey too.
    Values outside [-1, 1] are clipped, NaN becomes mid-grey. C is 1 or 3.
    Raises ValueError for another shape, no images, or columns < 1.
    """
    images = np.asarray(images, np.float32)
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not len(images):
        raise ValueError(f"images are [N, H, W, 1 or 3] with N > 0, not {images.shape}")
    if columns < 1 or pad < 0:
        raise ValueError(f"a grid needs columns >= 1 and pad >= 0, not {columns} and {pad}")
    count, height, width, channels = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    pixels = np.rint((np.clip(np.nan_to_num(images), -1, 1) + 1) * 127.5).astype(np.uint8)
    high, wide = height + pad, width + pad
    grid = np.full((rows * high, columns * wide, channels), RULE, np.uint8)
    for index, image in enumerate(pixels):
        top, left = (index // columns) * high, (index % columns) * wide
        grid[top : top + height, left : left + width] = image
    return grid[: rows * high - pad, : columns * wide - pad]


def traversal_image(images: np.ndarray) -> np.ndarray:
    """Traversals [D, T, H, W, C] in [-1, 1] as a plain grid, a row a dimension: uint8 [H', W', C].

    Raises ValueError for another shape.
    """
    images = np.asarray(images)
    if images.ndim != 5:
        raise ValueError(f"traversals are [D, T, H, W, C], not {images.shape}")
    return tile(images.reshape(-1, *images.shape[2:]), columns=images.shape[1])


def traversal_figure(
    path: str | Path,
    starts: np.ndarray,
    images: np.ndarray,
    nats: np.ndarray,
    values: Sequence[float],
    names: Sequence[str],
    share: str = "KL",
) -> None:
    """Draws latent traversals: a block for each starting image, a row for each dimension.

    The starting image stands to the left of the first row of its block. Dimensions with less than
    ACTIVE_NATS are left out, and a line below says how many they are. If all have less, the first
    one is drawn.

    Args:
      path: the PNG to write.
      starts: [S, H, W, C] in [-1, 1], the real images whose codes are traversed.
      images: [S, D, T, H, W, C] in [-1, 1]; the rows of a block are in falling order of `nats`.
      nats: [D], what each dimension carries.
      values: [T], what the dimension is set to.
      names: [D], row labels.
      share: what `nats` are, such as the KL divergence of each dimension from its prior.

    Raises ValueError if lengths disagree.
    """
    count, dims, steps = np.shape(images)[:3]
    for what, expected, given in (
        ("starting images", count, starts),
        ("names", dims, names),
        ("shares", dims, nats),
        ("values", steps, values),
    ):
        if len(given) != expected:
            raise ValueError(f"the traversals need {expected} {what}, not {len(given)}")
    silent = int(np.sum(np.asarray(nats) < ACTIVE_NATS))
    rows = max(1, dims - silent)
    starts, shown = (_shrink(np.asarray(x, np.float32), 256) for x in (starts, images[:, :rows]))
    blocks = [_block(start, block) for start, block in zip(starts, shown, strict=True)]
    scale = max(1, round(128 / shown.shape[4]))  # whole numbers keep the sprites' edges crisp
    gap = np.full((BETWEEN, *blocks[0].shape[1:]), 255, np.uint8)
    grid = np.concatenate([part for block in blocks for part in (block, gap)][:-1])
    grid = np.broadcast_to(grid, (*grid.shape[:2], 3)).repeat(scale, 0).repeat(scale, 1)
    left, top, below, margin = 150, 60, 54, 24
    height, width = top + below + len(grid), left + margin + grid.shape[1]
    cell = scale * (shown.shape[4] + 2)
    first = scale * (shown.shape[4] + BETWEEN)  # where the traversals begin, right of the start
    tall = scale * (len(blocks[0]) + BETWEEN)
    with canvas(path, width / DPI, height / DPI) as figure:
        figure.figimage(grid, left, below)
        for i in range(count):
            for j, (name, carried) in enumerate(zip(names[:rows], nats[:rows], strict=True)):
                y = 1 - (top + i * tall + (j + 0.5) * cell) / height
                label = f"{name}  {share} {carried:.2f}"
                figure.text((left - 14) / width, y, label, ha="right", va="center", color=INK)
        above = 1 - (top - 12) / height
        centre = (left + (first - BETWEEN * scale) / 2) / width
        figure.text(centre, above, "real image", ha="center", va="bottom", color=GREY)
        for k, value in enumerate(values):
            x = (left + first + (k + 0.5) * cell) / width
            figure.text(x, above, f"{value:+.1f}", ha="center", va="bottom", color=GREY)
        if silent:
            text = f"{silent} dimension{'s carry' if silent > 1 else ' carries'} nothing"
            figure.text(left / width, 18 / height, text, ha="left", va="bottom", color=GREY)


def _block(start: np.ndarray, images: np.ndarray) -> np.ndarray:
    """A starting image [H, W, C] beside its traversals [D, T, H, W, C]: uint8 [H', W', C]."""
    grid = traversal_image(images)
    column = np.full((len(grid), start.shape[1] + BETWEEN, grid.shape[2]), 255, np.uint8)
    column[: len(start), : start.shape[1]] = tile(start[None], 1)
    return np.concatenate([column, grid], axis=1)


def _shrink(images: np.ndarray, most: int) -> np.ndarray:
    """Averages blocks of pixels of [..., H, W, C] until W is at most `most`.

    Ten columns of 1,024 pixels would be a file that no page wants to hold.
    """
    *others, h, w, c = images.shape
    factor = -(-w // most)
    h, w = h // factor, w // factor
    blocks = images[..., : h * factor, : w * factor, :].reshape(*others, h, factor, w, factor, c)
    return blocks.mean(axis=(-4, -2))


# ------------------------------------------------------------------------------------- matrices


def matrix_figure(
    path: str | Path,
    matrix: np.ndarray,
    factor_names: Sequence[str],
    labels: Sequence[str],
    xlabel: str,
    by: str = "dimension",
) -> None:
    """Draws what dimensions have to do with factors, a row a factor and a column a dimension.

    Args:
      path: the PNG to write.
      matrix: [d, F], 0 or more: counts (integers are written in full), or numbers.
      factor_names: [F].
      labels: [d] names of the dimensions.
      xlabel: what the numbers are about.
      by: a box marks the largest of each "dimension" or of each "factor".

    Raises ValueError if the lengths disagree.
    """
    matrix = np.asarray(matrix)
    dims, factors = len(labels), len(factor_names)
    if matrix.shape != (dims, factors):
        raise ValueError(f"the matrix is {matrix.shape}, names say ({dims}, {factors})")
    whole = np.issubdtype(matrix.dtype, np.integer)
    with canvas(path, max(1.5 + 0.62 * dims, 3.6), 0.9 + 0.48 * factors) as figure:
        axes = figure.add_axes(_inches(figure, 1.2, 0.6, 0.15, 0.15))
        top = max(matrix.max(initial=0), 1 if whole else 1e-12)
        axes.imshow(matrix.T, cmap="Blues", vmin=0, vmax=1.15 * top, aspect="auto")
        axes.set_xticks(range(dims), labels)
        axes.set_yticks(range(factors), factor_names)
        axes.set_xlabel(xlabel)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        for (i, k), value in np.ndenumerate(matrix):
            small = value < (1 if whole else 0.005)
            colour = "white" if value > 0.6 * top else "#b5b5b5" if small else INK
            text = f"{value}" if whole else f"{value:.2f}"
            axes.text(i, k, text, ha="center", va="center", color=colour, fontsize=8)
        for i, k in _largest(matrix, by):
            xs, ys = np.array([i, k])[:, None] + BOX
            # The largest of nothing but small numbers says little.
            colour = ACCENT if matrix[i, k] > 0.05 * top else PALE
            axes.plot(xs, ys, color=colour, linewidth=1.4, clip_on=False)


def _largest(matrix: np.ndarray, by: str) -> list[tuple[int, int]]:
    """(dimension, factor) of the largest entry of each dimension, or each factor, that has any."""
    if by == "factor":
        return [(int(column.argmax()), k) for k, column in enumerate(matrix.T) if column.any()]
    return [(i, int(row.argmax())) for i, row in enumerate(matrix) if row.any()]


def _inches(figure: Figure, left: float, bottom: float, right: float, top: float) -> list[float]:
    """The rectangle, in fractions of `figure`, that these margins in inches leave."""
    width, height = figure.get_size_inches()
    return [
        left / width,
        bottom / height,
        1 - (left + right) / width,
        1 - (bottom + top) / height,
    ]
