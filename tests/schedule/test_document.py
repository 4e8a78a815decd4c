"""Files of a plugin's own kind: read with places, and overrides that keep them."""

import pytest
from pydantic import Field

import gatekit
from gatekit import Params, ScheduleError, load_document, load_schedule, resolve


class Wish(Params):
    version: int
    name: str = "x"
    changes: dict[str, tuple] = Field(default_factory=dict)


def write(tmp_path, text):
    file = tmp_path / "wish.yaml"
    file.write_text(text)
    return file


def test_a_document_is_its_model_and_knows_places(tmp_path):
    file = write(tmp_path, "version: 1\nname: one\nchanges:\n  sigmas.steps: [4, 8]\n")
    document = load_document(file, Wish)
    assert document.value == Wish(version=1, name="one", changes={"sigmas.steps": (4, 8)})
    assert document.folder == tmp_path.resolve()
    assert document.where(("name",)) == f"{file}:2:7: name"
    assert document.where(("name",), key=True) == f"{file}:2:1: name"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 1\nnmae: x\n", ":2:1: nmae: unknown key 'nmae'; did you mean 'name'?"),
        ("version: one\n", ":1:10: version: must be a whole number"),
        ("name: x\n", "this key is missing"),
        ("- 1\n", "a mapping of keys"),
        ("version: [\n", "no valid YAML"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path, text, said):
    with pytest.raises(ScheduleError) as error:
        load_document(write(tmp_path, text), Wish)
    assert said in str(error.value)


@pytest.mark.parametrize("text", [None, "", "\0", "a: [\n", "[" * 100, "a: " + "1" * 2**20])
def test_a_file_is_called_what_it_was_to_be(tmp_path, text):
    file = write(tmp_path, text) if text is not None else tmp_path / "none.yaml"
    for kind in ("YAML file", "wish list"):
        with pytest.raises(ScheduleError) as error:
            load_document(file, Wish, *([] if kind == "YAML file" else [kind]))
        assert "schedule" not in str(error.value)
        assert text == "a: [\n" or kind in str(error.value)


def load(project, tmp_path, key, value):
    file = write(tmp_path, f"version: 1\nchanges:\n  {key}: [{value}]\n")
    override = load_document(file, Wish).override(key, ("changes", key, 0))
    return load_schedule(project / "fake.yaml", [override])


def test_an_override_changes_the_schedule(project, tmp_path):
    schedule = load(project, tmp_path, "phases.low.sampler", "{use: heun}")
    assert schedule.phases[1].sampler.use == "heun"
    assert load(project, tmp_path, "sigmas.steps", "6").sigmas.steps == 6


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "sigmas.step",
            "6",
            ":3:3: sigmas.step: unknown key 'step'; did you mean 'steps'?",
        ),
        ("sigmaz", "6", ":3:3: sigmaz: unknown key 'sigmaz'; did you mean 'sigmas'?"),
        (
            "phases.hihg.until",
            "1",
            ":3:3: phases has no entry 'hihg'; did you mean 'high'?",
        ),
        ("sigmas.steps", "few", ":3:18: sigmas.steps: must be a whole number"),
        (
            "phases.low.sampler.use",
            "eulr",
            ":3:28: phases[1].sampler.use: unknown sampler",
        ),
        ("phases.high.sampler", "{use: unipc, ordr: 1}", ":3:38: phases[0].sampler.ordr"),
    ],
)
def test_an_error_that_comes_of_it_is_told_at_the_documents_line(
    project, tmp_path, key, value, said
):
    with pytest.raises(gatekit.UserError) as error:
        resolve(load(project, tmp_path, key, value))
    assert said in str(error.value)
