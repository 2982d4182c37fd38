"""A dataset whose images are its factors, so that codes can be any function of them."""

import itertools

import numpy as np

from ibgan_jax.metrics import Encoder


class FactorsAsImages:
    """Images [B, 1, 1, F] hold the factors, each scaled to [0, 1]."""

    name = "factors"

    def __init__(self, sizes=(3, 6, 40, 32, 32), names=None):
        self.factor_sizes = sizes
        self.factor_names = names or ("shape", "scale", "orientation", "x", "y")[: len(sizes)]
        self.batches = []

    def images(self, factors):
        self.batches.append(np.array(factors))
        largest = np.maximum(np.asarray(self.factor_sizes, np.float32) - 1, 1)
        return (np.asarray(factors, np.float32) / largest)[:, None, None, :]


def of_factors(function):
    """`codes_of` of a function of scaled factors [B, F]."""
    return lambda images: function(images[:, 0, 0, :])


def ideal(factors):
    """One dimension a factor, all of variance well above any pruning threshold."""
    return 4.0 * factors


def encoder(function, dataset):
    return Encoder(of_factors(function), dataset)


def everything(*sizes, times=1):
    """Every combination of factors, `times` over: int [N, F]."""
    return np.array(list(itertools.product(*map(range, sizes))) * times)
