"""Products of bfloat16 on processors that have no instructions for them.

Without AVX-512 (laptops, many servers) torch multiplies bfloat16 one number at a time. Factors
widened to float32, multiplied there and rounded once give what those instructions give, for they
add up in float32 as well: only the order of the sums differs.
"""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor


FEW_ROWS = 2
"""Of the left factor: there is less to multiply than to widen."""


@functools.cache
def widen_bfloat16_products() -> torch.library.Library | None:
    """From now on, in this process, matrix products of bfloat16 on the CPU go through float32.

    Products of other types stay as they are, bit for bit. Returns what holds the kernels in place,
    or None where the processor needs none.
    """
    import torch

    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    kernels = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a kernel is replaced
        kernels.impl("mm", functools.partial(_product, torch.ops.aten.mm.out), "CPU")
        kernels.impl("bmm", functools.partial(_product, torch.ops.aten.bmm.out), "CPU")
        kernels.impl("addmm", _added_product, "CPU")
    return kernels


def _product(product: Any, *tensors: Tensor) -> Tensor:
    """``product`` of ``tensors``, the last two its factors. It writes into a given tensor: that
    operator is not replaced, so it ends here."""
    import torch

    kind = tensors[-1].dtype
    if kind is torch.bfloat16 and tensors[-2].shape[-2] > FEW_ROWS:
        tensors = tuple(tensor.float() for tensor in tensors)
    left, right = tensors[-2:]
    out = left.new_empty(*left.shape[:-1], right.shape[-1])
    product(*tensors, out=out)
    return out.to(kind)


def _added_product(
    added: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    import torch

    scaled = functools.partial(torch.ops.aten.addmm.out, beta=beta, alpha=alpha)
    return _product(scaled, added, left, right)
