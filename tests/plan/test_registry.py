"""Plugins: found by name; broken and clashing ones stop only what needs them."""

from __future__ import annotations

import pytest

from gatekit import PluginError, Sampler, hookimpl
from gatekit.registry import Registry, list_samplers, registry


class One(Sampler):
    name = "one"

    def step(self, c):
        raise NotImplementedError


def plugin(*classes, hook="gatekit_register_samplers"):
    return type("Plugin", (), {hook: hookimpl(lambda self: list(classes), specname=hook)})()


def fail():
    raise ImportError("no module named 'missing'\nsecond line")


def test_built_in_plugins_come_through_the_public_door():
    assert {"euler", "heun", "dpmpp_2m", "unipc"} <= set(list_samplers())
    assert registry().plugins["samplers"].package == "gatekit-diffusion"
    assert registry() is registry()


def test_a_class_is_found_by_name():
    known = Registry()
    known.register(plugin(One), "p")
    assert known.get("sampler", "one") is One
    with pytest.raises(PluginError, match=r"here: unknown sampler 'won'; did you mean 'one'\?"):
        known.get("sampler", "won", where="here")


def test_two_plugins_of_one_name_are_both_named():
    other = type("Other", (One,), {})
    known = Registry()
    known.add(lambda: plugin(One), "a", "package-a", "1", "a")
    known.add(lambda: plugin(other), "b", "package-b", "1", "b")
    with pytest.raises(PluginError) as caught:
        known.get("sampler", "one")
    text = str(caught.value)
    assert "two plugins offer the sampler 'one'" in text
    assert ".One (package-a)" in text
    assert ".Other (package-b)" in text


def test_a_clash_stops_only_what_asks_for_it():
    other, two = type("Other", (One,), {}), type("Two", (One,), {"name": "two"})
    known = Registry()
    known.register(plugin(One, two), "a")
    known.register(plugin(other), "b")
    assert known.get("sampler", "two") is two


def test_a_plugin_whose_error_has_no_text_stops_no_other():
    def load():
        raise type("MuteError", (Exception,), {"__str__": lambda self: 1 / 0})

    known = Registry()
    known.add(load, "mute", "mute-package", "1", "mute")
    assert known.broken["mute"].error == "MuteError: its text cannot be told"


def test_a_broken_plugin_is_named_and_stops_only_what_needs_it():
    known = Registry()
    known.register(plugin(One), "good")
    known.add(fail, "bad", "bad-package", "0.3", "bad")
    assert known.get("sampler", "one") is One
    assert known.broken["bad"].error == "ImportError: no module named 'missing'"
    with pytest.raises(PluginError, match=r"Not loaded: plugin bad \(bad-package 0.3\): ImportErr"):
        known.get("sampler", "two")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (plugin(int), "gatekit_register_samplers must return classes derived from Sampler"),
        (plugin(One, hook="gatekit_register_grids"), "unknown hook 'gatekit_register_grids'"),
        (plugin(type("Nameless", (Sampler,), {})), "has no class attribute 'name'"),
        (plugin(One, hook="gatekit_register_sigmas"), "must return classes derived from SigmaGrid"),
    ],
)
def test_a_plugin_that_breaks_the_contract_is_told_what_to_do(made, expected):
    known = Registry()
    with pytest.raises(PluginError, match=expected):
        known.register(made, "p")
    assert not known.samplers


def test_removing_a_plugin_takes_out_what_it_offered():
    known = Registry()
    known.register(plugin(One), "p")
    known.remove("p")
    assert not known.samplers
    assert not known.plugins


def test_a_family_inherits_variants(fake):
    from_parent = registry().variant(fake.DerivedFamily, "number")
    assert from_parent is fake.Number
    assert registry().variants_of(fake.DerivedFamily) == {"number": fake.Number}
    with pytest.raises(PluginError, match="unknown variant 'nubmer'; did you mean 'number'"):
        registry().variant(fake.DerivedFamily, "nubmer")
