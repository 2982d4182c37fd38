"""How much memory is free, where the device says it and where it does not."""

import types

import jax
import pytest

from ibgan_jax import memory


def devices(platform, stats):
    return [types.SimpleNamespace(platform=platform, memory_stats=lambda: stats)]


@pytest.mark.parametrize(
    ("stats", "expected"),
    [({"bytes_limit": 10, "bytes_in_use": 4}, memory.Memory(4, 6)), (None, None)],
)
def test_the_hosts_memory_is_not_an_accelerators(monkeypatch, stats, expected):
    monkeypatch.setattr(jax, "local_devices", lambda: devices("gpu", stats))
    assert memory.available() == expected


def test_a_cpu_has_the_hosts(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: devices("cpu", None))
    assert memory.available().free > 2**20
