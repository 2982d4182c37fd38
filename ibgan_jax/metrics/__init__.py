"""HOW GOOD it is: scores of a representation against the factors that made the images."""

from ibgan_jax.metrics.beta_vae import beta_vae_of, beta_vae_score
from ibgan_jax.metrics.dci import completeness, dci, dci_of, disentanglement
from ibgan_jax.metrics.encoding import BATCH_SIZE, Encoder, FactorDataset
from ibgan_jax.metrics.factor_vae import FactorVaeScore, factor_vae_of, factor_vae_score
from ibgan_jax.metrics.fid import COUNT as FID_IMAGES
from ibgan_jax.metrics.fid import fid, frechet_distance
from ibgan_jax.metrics.gilbo import gilbo
from ibgan_jax.metrics.metric import combinations_of
from ibgan_jax.metrics.mig import mig, mig_of, posterior_mig_of
from ibgan_jax.metrics.model_centrality import model_centrality
from ibgan_jax.metrics.modularity import modularity, modularity_of
from ibgan_jax.metrics.moments import Statistics, statistics_of
from ibgan_jax.metrics.sap import sap, sap_of
from ibgan_jax.metrics.score import Result, Score
from ibgan_jax.metrics.selection import Selection, rank_correlation
from ibgan_jax.metrics.suite import METRICS, PROTOCOLS, RANKINGS, evaluate_all
from ibgan_jax.metrics.udr import udr

__all__ = [
    "BATCH_SIZE",
    "FID_IMAGES",
    "METRICS",
    "PROTOCOLS",
    "RANKINGS",
    "Encoder",
    "FactorDataset",
    "FactorVaeScore",
    "Result",
    "Score",
    "Selection",
    "Statistics",
    "beta_vae_of",
    "beta_vae_score",
    "combinations_of",
    "completeness",
    "dci",
    "dci_of",
    "disentanglement",
    "evaluate_all",
    "factor_vae_of",
    "factor_vae_score",
    "fid",
    "frechet_distance",
    "gilbo",
    "mig",
    "mig_of",
    "model_centrality",
    "modularity",
    "modularity_of",
    "posterior_mig_of",
    "rank_correlation",
    "sap",
    "sap_of",
    "statistics_of",
    "udr",
]
