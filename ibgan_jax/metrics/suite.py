"""All metrics by name, and several of them on one set of codes."""

from __future__ import annotations

from collections.abc import Iterable

import jax

from ibgan_jax.errors import UserError
from ibgan_jax.metrics.beta_vae import beta_vae_score
from ibgan_jax.metrics.dci import dci
from ibgan_jax.metrics.encoding import BATCH_SIZE, CodesOf, Encoder, FactorDataset
from ibgan_jax.metrics.factor_vae import factor_vae_score
from ibgan_jax.metrics.metric import Metric
from ibgan_jax.metrics.mig import PosteriorOf, mig
from ibgan_jax.metrics.model_centrality import PROTOCOLS as CENTRALITY_PROTOCOLS
from ibgan_jax.metrics.modularity import modularity
from ibgan_jax.metrics.sap import sap
from ibgan_jax.metrics.score import Score
from ibgan_jax.metrics.udr import PROTOCOLS as UDR_PROTOCOLS

METRICS: dict[str, Metric] = {
    "factor_vae": factor_vae_score,
    "mig": mig,
    "dci": dci,
    "sap": sap,
    "modularity": modularity,
    "beta_vae": beta_vae_score,
}

# The protocols of each metric, the default one first.
PROTOCOLS = {name: measured.protocols for name, measured in METRICS.items()}

# What ranks members of a population without labels, likewise.
RANKINGS = {"udr": UDR_PROTOCOLS, "model_centrality": CENTRALITY_PROTOCOLS}


def evaluate_all(
    codes_of: CodesOf | Encoder,
    dataset: FactorDataset,
    key: jax.Array,
    names: Iterable[str] = ("factor_vae", "mig", "dci:linear", "sap", "modularity"),
    batch_size: int = BATCH_SIZE,
    posterior_of: PosteriorOf | None = None,
) -> dict[str, Score]:
    """Several metrics on the same images: each combination of factors is encoded once at most.

    Every score is what the metric called alone with the same key gives. The default leaves out what
    takes minutes: `dci` by boosted trees, and `beta_vae`, which encodes most of the data set.

    Args:
      codes_of: images [B, H, W, C] in [-1, 1] -> codes [B, d], or an Encoder.
      dataset: has `name`, `factor_names`, `factor_sizes`, `images(factors)`.
      key: a JAX random key.
      names: `METRIC` or `METRIC:PROTOCOL`, as in ("mig", "factor_vae:infogan_cr").
      batch_size: images encoded at a time.
      posterior_of: images -> (means, log variances) [B, d], for "mig:chen2018".

    Returns:
      name as given -> score.

    Raises:
      UserError: unknown metric or protocol, no factors, or the codes are not finite [B, d].
    """
    names = list(names)
    for name in names:
        if name.partition(":")[0] not in METRICS:
            raise UserError(f"unknown metric {name!r}; choose from: {', '.join(METRICS)}")
    shared = codes_of if isinstance(codes_of, Encoder) else Encoder(codes_of, dataset, batch_size)
    scores = {}
    for name in names:
        metric, _, protocol = name.partition(":")
        options = {"protocol": protocol} if protocol else {}
        if metric == "mig":
            options["posterior_of"] = posterior_of
        scores[name] = METRICS[metric](shared, dataset, key, batch_size=batch_size, **options)
    return scores
