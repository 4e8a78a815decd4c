"""How a capture goes about torch's streams, told by doubles of torch's own; GPUs run the bench."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from gatekit_wan22 import capturing

POOL = (0, 7)


@pytest.fixture
def told(monkeypatch):
    """What torch is asked for, in order, with the stream that is current then."""
    events, state = [], SimpleNamespace(stream="main", fails=())

    def note(what, *more):
        events.append((state.stream, what, *more))

    class Stream:
        def __init__(self, name):
            self.name = name

        def wait_stream(self, other):
            note("wait", self.name, other.name)

    @contextlib.contextmanager
    def stream(which):
        before, state.stream = state.stream, which.name
        yield
        state.stream = before  # as torch's graph does, not where something is raised

    class Graph:
        def replay(self):
            note("replay")

    class Capturing:
        def __init__(self, made, pool, side, mode):
            note("capture", pool, mode)
            self.within = stream(side)

        def __enter__(self):
            self.within.__enter__()

        def __exit__(self, *_):
            if "end" in state.fails:
                raise RuntimeError("the capture cannot be ended")
            self.within.__exit__(None, None, None)

    streams = {"main": Stream("main"), "side": Stream("side")}
    cuda = {
        "device": lambda index: contextlib.nullcontext(note("device", index)),
        "current_device": lambda: 0,
        "current_stream": lambda: streams[state.stream],
        "set_stream": lambda which: setattr(state, "stream", which.name),
        "stream": stream,
        "CUDAGraph": Graph,
        "graph": Capturing,
        "graph_pool_handle": lambda: POOL,
    }
    for name, double in cuda.items():
        monkeypatch.setattr(torch.cuda, name, double)
    for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        double = lambda index, pool, name=name: note(name, index, pool)  # noqa: E731
        monkeypatch.setattr(torch._C, name, double, raising=False)
    monkeypatch.setattr(capturing, "_side", lambda index: streams["side"])
    monkeypatch.setattr(capturing, "release", lambda: note("release"))
    return SimpleNamespace(events=events, state=state, note=note)


def test_work_is_done_on_the_side_then_captured_there(told):
    capture, outs = capturing.CudaCapture("cuda:1"), iter("ab")

    def work():
        told.note("work")
        return next(outs)

    replay = capture(work)
    assert told.events == [
        ("main", "device", "cuda:1"),
        ("main", "wait", "side", "main"),
        ("side", "work"),
        ("main", "wait", "main", "side"),
        ("main", "release"),
        ("main", "capture", POOL, "thread_local"),
        ("side", "work"),
    ]
    assert told.state.stream == "main"
    assert replay() == "b" and told.events[-1] == ("main", "replay")


def test_graphs_of_one_model_share_their_memory(told, monkeypatch):
    pools = iter([(0, 1), (0, 2)])
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: next(pools))
    capture, other = capturing.CudaCapture("cuda"), capturing.CudaCapture("cuda")
    for each in (capture, capture, other):
        each(lambda: None)
    used = [event[2] for event in told.events if event[1] == "capture"]
    assert used == [(0, 1), (0, 1), (0, 2)]


@pytest.mark.parametrize("where", ["warm", "capture", "end"])
def test_torch_is_put_in_order_where_it_fails(told, where):
    """The stream is the caller's again, and torch's memory believes in no capture."""
    told.state.fails = (where,)
    calls = []

    def work():
        calls.append(told.state.stream)
        if ("warm", "capture")[len(calls) - 1] == where:
            raise torch.OutOfMemoryError("no memory")

    with pytest.raises(RuntimeError, match=r"no memory|cannot be ended"):
        capturing.CudaCapture("cuda")(work)
    assert told.state.stream == "main"
    ended = [("_cuda_endAllocateToPool", 0, POOL), ("_cuda_releasePool", 0, POOL)]
    found = [event[1:] for event in told.events if str(event[1]).startswith("_cuda")]
    assert found == ([] if where == "warm" else ended)  # nothing had begun
    assert calls == ["side"] * (1 if where == "warm" else 2)


def test_what_torch_knows_is_over_is_released_once(told, monkeypatch):
    def ended(index, pool):
        raise RuntimeError("not currently recording")

    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", ended, raising=False)

    def work():
        raise RuntimeError("no kernel")

    with pytest.raises(RuntimeError, match="no kernel"):
        capturing.CudaCapture("cuda")(work)
    assert "_cuda_releasePool" not in [event[1] for event in told.events]
