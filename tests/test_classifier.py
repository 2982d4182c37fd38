"""Which network FID takes its features from."""

from pathlib import Path

import pytest

from ibgan_jax.errors import UserError
from ibgan_jax.metrics import classifier


@pytest.fixture
def path(monkeypatch, tmp_path):
    """A folder; whatever is loaded says by which protocol and from where."""
    for name in classifier.LOADERS:
        record = {"protocol": name} | ({"dataset": "dsprites"} if name == "factor_net" else {})
        monkeypatch.setitem(classifier.LOADERS, name, lambda p, record=record: (p, record))
    (tmp_path / "weights.pth").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "protocol", "taken"),
    [
        ("", "", "factor_net"),
        ("weights.pth", "", "inception"),
        ("missing.pth", "", "inception"),
        ("missing", "", "factor_net"),
        ("", "inception", "inception"),
        ("weights.pth", "factor_net", "factor_net"),
    ],
)
def test_the_protocol_asked_for_or_that_of_the_path(path, name, protocol, taken):
    found, record = classifier.load(path / name, protocol)
    assert (found, record["protocol"]) == (path / name, taken)


def test_a_data_set_that_it_has_not_learned(path):
    assert classifier.load(path, dataset="dsprites")
    assert classifier.load(path / "weights.pth", dataset="celeba")
    with pytest.raises(UserError, match="was trained on dsprites, a run on celeba"):
        classifier.load(path, dataset="celeba")


def test_what_is_missing_is_said():
    for protocol, said in (("", "pytorch-fid"), ("", "factor_classifier"), ("inception", ".pth")):
        with pytest.raises(UserError, match=f"fid needs --classifier=PATH.*{said}") as caught:
            classifier.load(None, protocol)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"unknown protocol 'vgg'.*factor_net, inception"):
        classifier.load(Path("any"), "vgg")
