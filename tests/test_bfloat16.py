"""Products of bfloat16 where the processor has no instructions for them."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In a process of its own: a kernel once replaced stays so.
PRODUCTS = """
import torch
torch.manual_seed(0)
from unierase import bfloat16

left, right, added = torch.randn(5, 70, 90), torch.randn(5, 90, 40), torch.randn(40)
weight = torch.randn(40, 90, requires_grad=True)

def products(kind):
    l, r, a = left.to(kind), right.to(kind), added.to(kind)
    few = l[0, :2] @ r[0]
    w = weight.detach().to(kind).requires_grad_()
    y = torch.nn.functional.linear(l, w, a)
    y.float().square().sum().backward()
    z = torch.addmm(a, l[0], r[0], beta=2, alpha=0.5)
    return [l @ r, l[0] @ r[0], l[1].T.contiguous().T @ r[0], y.detach(), w.grad, z, few]

def exact():
    names = [x.to(torch.bfloat16).double() for x in (left, right, added, weight.detach())]
    l, r, a, w = names
    return [l @ r, l[0] @ r[0], l[1] @ r[0], l @ w.T + a, None, 2 * a + 0.5 * l[0] @ r[0],
            l[0, :2] @ r[0]]

full, plain = products(torch.float32), products(torch.bfloat16)
torch.ops.mkldnn._is_mkldnn_bf16_supported = lambda: SUPPORTED
kernels = bfloat16.widen_bfloat16_products()
assert (kernels is None) == SUPPORTED, kernels
assert bfloat16.widen_bfloat16_products() is kernels
assert all(torch.equal(a, b) for a, b in zip(full, products(torch.float32), strict=True))
wide = products(torch.bfloat16)
if SUPPORTED:
    assert all(torch.equal(a, b) for a, b in zip(plain, wide, strict=True))
for was, now, true in zip(plain, wide, exact(), strict=True):
    assert was.dtype is now.dtype is torch.bfloat16 and was.shape == now.shape
    scale = was.abs().max().item()
    torch.testing.assert_close(now.double(), was.double(), rtol=2e-2, atol=2e-2 * scale)
    if true is not None:  # rounded once: half a unit in the last of eight places
        error = (now.double() - true).abs()
        assert (error <= true.abs() * 2**-8 + 1e-4).all(), error.max()
"""


@pytest.mark.parametrize("supported", [False, True])
def test_products_are_rounded_once_and_other_types_are_left_alone(supported: bool) -> None:
    code = f"SUPPORTED = {supported}\n{PRODUCTS}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
