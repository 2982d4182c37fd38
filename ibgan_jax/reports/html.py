"""One page for one run or for many: figures, scores, settings and what they mean.

No script, no font, no picture comes from elsewhere, so it can be mailed, archived or printed as it
is.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

from ibgan_jax.errors import UserError
from ibgan_jax.reports.figures import ACTIVE_NATS, atomic

Cell = str | tuple[str, str]

#: Explanations to put under the usual figures, by file stem.
CAPTIONS = {
    "samples": "Images the generator makes from random codes. They should be as varied as the "
    "data, and no two alike: many copies of one image mean that the generator has collapsed.",
    "reconstructions": "Each real image with, below it, what is generated from its representation. "
    "What differs is what the representation does not say.",
    "traversal": "Each block starts from the code of the real image on its left. Each row sets one "
    "dimension of that code to the values at the top and keeps the others. In a disentangled model "
    "one row changes one thing: the position, the size, the shape. The number says how many nats "
    f"the dimension carries; those with less than {ACTIVE_NATS} nats are left out.",
    "convergence": "Above: what the code carries is at most I_U, and what can be read back from "
    "generated images is at least I_L; the thin lines are the share of each dimension. "
    "Below: the disentanglement score at each evaluation. The dashed line marks the best.",
    "curves": "Losses, the discriminator's mean output on real images, D(x), and on generated "
    "ones, D(G), the instance noise and the speed. D(x) near 1 with D(G) near 0 means that the "
    "discriminator has won and teaches the generator little. Pale: as recorded; full: averaged.",
    "information": "Mutual information, in nats, between each dimension (column) and each factor "
    "(row); a box marks the dimension that tells most of a factor. MIG is by how much it beats the "
    "second, as a share of the factor's entropy.",
    "spread": "Means over the seeds of each setting; the band is one standard deviation.",
    "sweep": "Each point is the mean over seeds, with one standard deviation, of a run's median "
    "over its iterations; the last panel has its best and its last score beside that median.",
    "votes": "Images that share one factor (row) are encoded many times; the dimension (column) "
    "that varies least gets a vote. Boxes mark each dimension's majority. A disentangled code has "
    "one full cell in each row, each in a column of its own.",
}

TERMS = (
    ("I_U, upper bound", "E[KL(e(r|z) || m(r))] for IB-GAN, E[KL(q(z|x) || p(z))] for a VAE: the "
     "code cannot carry more than this. In nats."),
    ("I_L, lower bound", "E[log q(z|x)] + H(z): so much of z can surely be read from the image."),
    ("ELBO", "E[log p(x|z)] - KL(q(z|x) || p(z)), a VAE's lower bound of log p(x). In nats."),
    ("active dimension", "one whose code has a variance of 0.05 or more over the data set; only "
     "these get votes."),
    ("FactorVAE score", "how well the code dimension that varies least gives away the factor that "
     "was held, from chance (1 / number of factors) to 1."),
    ("MIG", "mutual information gap: by how much the best dimension beats the second for each "
     "factor, as a share of the factor's entropy; from 0 to 1."),
    ("best, median, last", "over the evaluations of this run. Papers report the best; it is "
     "chosen by the score itself and so flatters the model."),
)  # fmt: skip

STYLE = """
:root { color-scheme: light dark; --ink: #1d1f23; --soft: #5d636d; --page: #fff; --card: #f5f6f8;
  --line: #dfe2e7; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e8e9ec; --soft: #a4abb6; --page: #16181c; --card: #22252b; --line: #363b44; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 62rem; color: var(--ink);
  background: var(--page); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1.25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.75rem 0 .75rem; padding-top: .9rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 0 0 .5rem; }
p { margin: .5rem 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.3rem, 1fr));
  gap: .75rem; margin: 0; }
.cards div { background: var(--card); border-radius: .5rem; padding: .7rem .8rem;
  display: flex; flex-direction: column; justify-content: space-between; }
.cards dt { color: var(--soft); font-size: .82rem; }
.cards dd { margin: 0; font-size: 1.25rem; font-weight: 600; overflow-wrap: anywhere;
  font-variant-numeric: tabular-nums; }
figure { margin: 0 0 2.25rem; break-inside: avoid; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; background: #fff;
  border: 1px solid var(--line); border-radius: .4rem; }
figcaption { color: var(--soft); font-size: .92rem; max-width: 46rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 600; white-space: nowrap; }
tbody th { font-weight: 500; white-space: nowrap; }
td { overflow-wrap: anywhere; }
td.number { white-space: nowrap; font-variant-numeric: tabular-nums; }
.mono td, .mono th { font: .84rem/1.5 ui-monospace, monospace; }
.mono tbody th { width: 40%; }
.terms { font-size: .92rem; max-width: 46rem; }
.terms dt { font-weight: 600; }
.terms dd { margin: 0 0 .5rem; color: var(--soft); }
@media (max-width: 34rem) { body { padding: 1.25rem .9rem 3rem; } h1 { font-size: 1.35rem; }
  .cards { grid-template-columns: 1fr 1fr; } .mono tbody th { white-space: normal;
  overflow-wrap: anywhere; } figure img { max-width: 42rem; } }
@media print { figure img { max-width: 100%; }
  body { max-width: none; padding: 0; font-size: 10.5pt; } tr { break-inside: avoid; }
  h2 { break-after: avoid; } .wide { overflow: visible; } tbody th { white-space: normal; } }
"""

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header>
<h1>$title</h1>
$summary
</header>
<main>
$body
</main>
</body>
</html>
""")


def write_report(
    path: str | Path,
    title: str,
    summary: Sequence[tuple[str, object]],
    figures: Sequence[tuple[Path, str, str]],
    settings: Mapping[str, object],
    scores: Mapping[str, object],
    notes: Sequence[str],
    software: Mapping[str, object] | None = None,
    tables: Sequence[tuple[str, Sequence[Sequence[Cell]]]] = (),
    links: Sequence[tuple[str, str]] = (),
) -> None:
    """Writes one self-contained page about a run, or about many.

    Args:
      path: the HTML file to write.
      title: the run's name.
      summary: (label, value) of the cards under the title.
      figures: (PNG, title, caption); an empty line in a caption starts a new paragraph.
      settings: the resolved config, nested as it is.
      scores: `scores.json`: metric -> {"value", "interval" (low, high), "protocol", and the rest}.
      notes: remarks. software: package versions, commit, device.
      tables: (heading, rows); the first row holds the heads, a cell may be (text, file beside it).
      links: (text, file beside it) of other pages about the same run.

    Everything is escaped. Raises UserError naming a missing figure, before anything is written.
    """
    sections = (
        *(_section(heading, _table(rows)) for heading, rows in tables),
        _section("Figures", "\n".join(_figure(*figure) for figure in figures)),
        _section("Scores", _scores(scores)),
        _section("Notes", _list(notes)),
        _section("Words used here", _pairs(TERMS, "terms")),
        _section("Settings", _settings(settings)),
        _section("Software and device", _settings(software or {})),
    )
    page = PAGE.substitute(
        title=escape(title),
        style=STYLE,
        summary=_pairs(summary, "cards") + _links(links),
        body="\n".join(section for section in sections if section),
    )
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def flatten(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yields (dotted key, value) for the leaves of a nested mapping, in its order."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _section(heading: str, content: str) -> str:
    return f"<section>\n<h2>{heading}</h2>\n{content}\n</section>" if content else ""


def _figure(path: Path, title: str, caption: str) -> str:
    try:
        data = base64.b64encode(Path(path).read_bytes()).decode()
    except OSError as error:
        raise UserError(f"the report's figure {path} cannot be read: {error.strerror}") from error
    paragraphs = "".join(f"<p>{escape(text)}</p>" for text in caption.split("\n\n") if text.strip())
    return (
        f"<figure>\n<h3>{escape(title)}</h3>\n"
        f'<div class="wide"><img alt="{escape(title)}" src="data:image/png;base64,{data}"></div>\n'
        f"<figcaption>{paragraphs}</figcaption>\n</figure>"
    )


def _pairs(pairs: Sequence[tuple[str, object]], kind: str) -> str:
    rows = "\n".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(_text(value))}</dd></div>"
        for label, value in pairs
    )
    return f'<dl class="{kind}">\n{rows}\n</dl>' if rows else ""


def _links(links: Sequence[tuple[str, str]]) -> str:
    items = ", ".join(f'<a href="{escape(file)}">{escape(text)}</a>' for text, file in links)
    return f"\n<p>See also {items}.</p>" if items else ""


def _list(notes: Sequence[str]) -> str:
    items = "\n".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<ul>\n{items}\n</ul>" if items else ""


def _settings(settings: Mapping[str, object]) -> str:
    rows = "\n".join(
        f"<tr><th>{escape(key)}</th><td>{escape(_text(value, digits=None))}</td></tr>"
        for key, value in flatten(settings)
    )
    return f'<div class="wide mono"><table><tbody>\n{rows}\n</tbody></table></div>' if rows else ""


def _table(rows: Sequence[Sequence[Cell]]) -> str:
    heads, *lines = rows
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "\n".join(f"<tr>{''.join(map(_cell, line))}</tr>" for line in lines)
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _cell(cell: Cell) -> str:
    text, file = cell if isinstance(cell, tuple) else (cell, None)
    shown = escape(text) if file is None else f'<a href="{escape(file)}">{escape(text)}</a>'
    return f'<td class="number">{shown}</td>'


def _scores(scores: Mapping[str, object]) -> str:
    rows = []
    for metric, record in scores.items():
        rest = dict(record) if isinstance(record, Mapping) else {"value": record}
        value, interval = rest.pop("value", None), rest.pop("interval", None)
        protocol = rest.pop("protocol", None)
        span = " to ".join(_text(bound) for bound in interval) if interval else "-"
        taken = ", ".join(f"{key} {_text(item, digits=None)}" for key, item in flatten(rest))
        rows.append(
            f"<tr><th>{escape(metric)}</th>"
            f'<td class="number">{escape(_text(value))}</td><td class="number">{escape(span)}</td>'
            f'<td class="number">{escape(_text(protocol))}</td><td>{escape(taken)}</td></tr>'
        )
    if not rows:
        return ""
    heads = ("metric", "value", "95 % interval", "protocol", "settings")
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "\n".join(rows)
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _text(value: object, digits: int | None = 3) -> str:
    """A value as people read it: floats to `digits` places (in full if None), None as a dash."""
    if value is None:
        return "-" if digits is not None else "none"
    if isinstance(value, str):
        return value
    if isinstance(value, float) and digits is not None:
        return f"{value:.{digits}f}"
    if isinstance(value, int) and not isinstance(value, bool) and digits is not None:
        return f"{value:,}"
    text = json.dumps(value, default=str)
    return text if len(text) <= 300 else text[:297] + "..."
