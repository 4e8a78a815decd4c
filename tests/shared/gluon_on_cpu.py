"""A Gluon kernel run by Triton's interpreter, which itself knows Triton's language alone.

Layouts are dropped: where a number lies makes no difference to its value. What the kernel must get
right by itself is kept, and an error where it does not: asynchronous work is done as late as it
may be (copies when they are waited for, products when they are waited for), threads see what others
wrote to shared memory only after a barrier, tensor cores only after a fence and a barrier, and
what tensor cores still read may not be written to.
"""

import types

import numpy as np
import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction, TensorHandle
from triton.runtime.jit import ConstexprFunction


def on_cpu(kernel):
    """The kernel, for a grid, as one of the interpreter's."""
    sm = Multiprocessor()
    scope = {
        n: getattr(v, "value", v) if n.isupper() else v for n, v in kernel.fn.__globals__.items()
    }
    scope |= {
        "gl": Language(sm),
        "range": lambda *ends: range(*map(number, ends)),
        "async_copy": sm,
        "fence_async_shared": sm.fence,
        "warpgroup_mma": sm.multiply,
        "warpgroup_mma_wait": sm.wait_products,
    }
    scope |= {n: lambda *_: None for n, v in scope.items() if isinstance(v, ConstexprFunction)}
    fn = types.FunctionType(kernel.fn.__code__, scope, kernel.fn.__name__)
    fn.__annotations__ = kernel.fn.__annotations__
    return Interpreted(fn)


class Interpreted(InterpretedFunction):
    """Which knows what is constant by Gluon's name for it too."""

    def rewrite(self):
        fn = super().rewrite()
        notes = fn.__annotations__
        fn.__annotations__ = {n: str(a).replace("gl.", "tl.") for n, a in notes.items()}
        return fn


def number(value):
    """A Python number, of a tensor's only one."""
    return value.handle.data.item() if hasattr(value, "handle") else value


def tensor(data, kind):
    """Numbers as a tensor of the interpreter."""
    return tl.tensor(TensorHandle(data, kind), tl.block_type(kind, list(data.shape)))


class Language:
    """``gl``: the names that Triton's language has, less the layouts, and shared memory."""

    num_warps = staticmethod(lambda: 8)

    def __init__(self, sm):
        self.sm = sm
        for name in ("BlockedLayout", "SliceLayout", "NVMMADistributedLayout", "NVMMASharedLayout"):
            setattr(self, name, lambda *_: None)

    def __getattr__(self, name):
        return getattr(tl, name)

    def arange(self, start, end, layout):
        return tl.arange(start, end)

    def zeros(self, shape, dtype, layout):
        return tl.zeros(shape, dtype)

    def allocate_shared_memory(self, dtype, shape, layout):
        return Shared(self.sm, shape)

    def convert_layout(self, value, layout):
        return value

    def thread_barrier(self):
        self.sm.barrier()


class Shared:
    """Buffers of fp16: NaN until something is written to them."""

    def __init__(self, sm, shape):
        self.buffers = [Buffer(sm, shape[1:]) for _ in range(shape[0])]

    def index(self, at):
        return self.buffers[number(at)]


class Buffer:
    """One of them: what has been written, who may see it, who may still read it."""

    def __init__(self, sm, shape):
        self.sm, self.data = sm, np.full(shape, np.nan, np.float16)
        self.seen, self.fenced, self.read = True, True, False
        sm.buffers.append(self)

    def permute(self, order):
        assert list(order) == [1, 0]
        return types.SimpleNamespace(buffer=self)

    def write(self, data, fenced):
        assert not self.read, "tensor cores may still read what is written to"
        assert data.shape == self.data.shape
        self.data[:] = data
        self.seen, self.fenced = False, fenced

    def store(self, value):
        assert value.dtype == tl.float16
        self.write(value.handle.data, fenced=False)


class Multiprocessor:
    """Copies and products under way, oldest first."""

    def __init__(self):
        self.buffers, self.products, self.groups, self.open = [], [], [], []

    def async_copy_global_to_shared(self, buffer, pointers):
        buffer.write(np.full(buffer.data.shape, np.nan, np.float16), fenced=True)
        self.open.append((buffer, tl.load(pointers).handle.data))

    def commit_group(self):
        self.groups.append(self.open)
        self.open = []

    def wait_group(self, count):
        while len(self.groups) > count:
            for buffer, data in self.groups.pop(0):
                buffer.write(data, fenced=True)

    def fence(self):
        for buffer in self.buffers:
            buffer.fenced = True

    def barrier(self):
        reading = {id(b) for job in self.products for b in job[:2]}
        for buffer in self.buffers:
            buffer.seen = buffer.seen or buffer.fenced
            buffer.read = id(buffer) in reading

    def multiply(self, a, b, total, is_async):
        assert is_async
        for buffer in (a, b.buffer):
            assert buffer.seen, "tensor cores read what no fence and barrier has shown them"
            buffer.read = True
        if not isinstance(total, list):
            total = [total.handle.data]
        self.products.append((a, b.buffer, total))
        return total

    def wait_products(self, count, deps):
        (total,) = deps
        while len(self.products) > count:
            a, b, mine = self.products.pop(0)
            mine[0] = mine[0] + a.data.astype(np.float32) @ b.data.astype(np.float32).T
        return total if self.products else tensor(total[0], tl.float32)
