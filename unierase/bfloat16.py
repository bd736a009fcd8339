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


def _product(product: Any, left: Tensor, right: Tensor) -> Tensor:
    """``product`` writes into a given tensor: that operator is not replaced, so it ends here."""
    out = _factor(left, left).new_empty(*left.shape[:-1], right.shape[-1])
    product(_factor(left, left), _factor(right, left), out=out)
    return out.to(left.dtype)


def _added_product(
    added: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    import torch

    out = _factor(left, left).new_empty(left.shape[0], right.shape[-1])
    factors = [_factor(tensor, left) for tensor in (added, left, right)]
    torch.ops.aten.addmm.out(*factors, beta=beta, alpha=alpha, out=out)
    return out.to(left.dtype)


def _factor(tensor: Tensor, left: Tensor) -> Tensor:
    """``tensor`` of a product with ``left``, in the type it is multiplied in: of a row or two there
    is less to multiply than to widen."""
    import torch

    if tensor.dtype is torch.bfloat16 and left.shape[-2] > FEW_ROWS:
        return tensor.float()
    return tensor
