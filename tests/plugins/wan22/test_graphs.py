"""Graphs by key: the second pass is captured, later ones replayed, results are nobody else's."""

import logging

import pytest
import torch
from graph_recorder import Recorder

from gatekit_wan22.graphs import SEEN, Graphs


class Pass:
    """Some work that counts its calls and what memory they were given."""

    def __init__(self):
        self.given = []

    def __call__(self, x, time):
        self.given.append((x.data_ptr(), time.data_ptr()))
        return 2 * x + time


def numbers(value, length=3):
    return torch.full((length,), float(value)), torch.full((1,), value / 8, dtype=torch.float64)


@pytest.fixture
def recorder():
    return Recorder()


def test_first_as_it_is_then_captured_then_replayed(recorder):
    graphs, work = Graphs(recorder), Pass()
    counts = []
    for value in range(4):
        given = numbers(value)
        assert torch.equal(graphs.run(work, given, "a"), Pass()(*given))
        counts.append((recorder.captured, recorder.replayed))
    assert counts == [(0, 0), (1, 1), (1, 2), (1, 3)]
    first, *later = work.given
    assert first not in later and len(set(later)) == 1  # inputs of the graph's own


def test_a_result_is_not_written_to_again(recorder):
    graphs, kept = Graphs(recorder), []
    for value in range(4):
        kept.append(graphs.run(Pass(), numbers(value), "a"))
    for value, found in enumerate(kept):
        assert torch.equal(found, Pass()(*numbers(value)))


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(lambda x: x[:1].expand(4, 3, 5), id="repeated"),
        pytest.param(lambda x: x.transpose(1, 2), id="turned"),
        pytest.param(lambda x: x[:, ::2, 1:], id="a part"),
    ],
)
def test_inputs_keep_their_layout(recorder, layout):
    """As kernels are chosen by it, and those round in their own ways."""
    graphs, seen = Graphs(recorder), []

    def work(x):
        seen.append((x.stride(), x.shape))
        return 2 * x

    for value in (1.0, 2.0, 3.0):
        given = layout(value * torch.arange(60.0).view(4, 3, 5))
        assert torch.equal(graphs.run(work, (given,), "a"), 2 * given)
    assert len(set(seen)) == 1 and recorder.replayed == 2


def test_shapes_types_and_how_have_graphs_of_their_own(recorder):
    graphs = Graphs(recorder)
    x, time = numbers(1)
    keys = [
        ((x, time), "a"),
        ((x, time), "b"),
        ((x[:2], time), "a"),
        ((x.double(), time), "a"),
    ]
    for _ in range(3):
        for given, how in keys:
            found = graphs.run(Pass(), given, how)
            assert found.dtype == Pass()(*given).dtype and torch.equal(found, Pass()(*given))
    assert (recorder.captured, recorder.replayed, len(graphs)) == (4, 8, 4)


def test_the_graph_that_was_replayed_longest_ago_goes(recorder):
    graphs = Graphs(recorder, kept=2)

    def run(how):
        before = recorder.captured
        graphs.run(Pass(), numbers(1), how)
        return recorder.captured - before

    for how in ("a", "a", "b", "b"):
        run(how)
    run("a")
    assert [run("c"), run("c"), len(graphs)] == [0, 1, 2]
    assert [run("a"), run("b")] == [0, 1]  # b went


def test_keys_that_come_once_are_forgotten(recorder):
    graphs = Graphs(recorder)
    for how in range(SEEN + 1):
        graphs.run(Pass(), numbers(1), how)
    graphs.run(Pass(), numbers(1), 0)
    assert recorder.captured == 0
    graphs.run(Pass(), numbers(1), SEEN)
    assert recorder.captured == 1


def test_what_is_dropped_is_captured_anew(recorder):
    graphs = Graphs(recorder)
    for _ in range(2):
        graphs.run(Pass(), numbers(1), "a")
    graphs.drop()
    assert len(graphs) == 0
    for value in (2, 3, 4):
        assert torch.equal(graphs.run(Pass(), numbers(value), "a"), Pass()(*numbers(value)))
    assert recorder.captured == 2


@pytest.mark.parametrize("error", [RuntimeError("not permitted"), torch.OutOfMemoryError("no")])
def test_what_cannot_be_captured_runs_and_is_said_once(error, caplog):
    tried = []

    def capture(work):
        tried.append(work)
        raise error

    graphs = Graphs(capture)
    with caplog.at_level(logging.WARNING, "gatekit"):
        for value in range(4):
            for how in ("a", "b"):
                found = graphs.run(Pass(), numbers(value), how)
                assert torch.equal(found, Pass()(*numbers(value)))
    assert len(tried) == 1 and graphs.failed and len(graphs) == 0
    (line,) = caplog.messages
    assert str(error) in line and "launched one by one" in line


def test_a_failure_lets_other_graphs_go(recorder):
    """Memory may be what is lacking."""

    def capture(work):
        if recorder.captured:
            raise torch.OutOfMemoryError("no memory")
        return recorder(work)

    graphs = Graphs(capture)
    for how in ("a", "a", "b"):
        graphs.run(Pass(), numbers(1), how)
    assert len(graphs) == 1
    for how in ("b", "a"):
        assert torch.equal(graphs.run(Pass(), numbers(5), how), Pass()(*numbers(5)))
    assert len(graphs) == 0


def test_an_interruption_is_no_failure(recorder):
    def capture(work):
        raise KeyboardInterrupt

    graphs = Graphs(capture)
    graphs.run(Pass(), numbers(1), "a")
    with pytest.raises(KeyboardInterrupt):
        graphs.run(Pass(), numbers(1), "a")
    assert not graphs.failed


def test_inference_mode_and_none_have_graphs_of_their_own(recorder):
    graphs = Graphs(recorder)
    for value in range(3):
        for mode in (True, False):
            with torch.inference_mode(mode), torch.no_grad():
                found = graphs.run(Pass(), numbers(value), "a")
                assert found.is_inference() is mode
                assert torch.equal(found, Pass()(*numbers(value)))
    assert recorder.captured == 2
