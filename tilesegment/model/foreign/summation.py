"""One library for every convolution on a CPU, for networks that are not ours.

torch computes small inputs with another library than large ones, in another order of summation
(docs/exactness.md). Here each convolution is intercepted on its way to torch and computed by
oneDNN, whatever its size. What `fuse` does once for our own networks happens at each call.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_CONVOLUTIONS = {torch.ops.aten.convolution.default, torch.ops.aten._convolution.default}


class OneLibrary(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While entered, this thread's 2-D convolutions are oneDNN's, also inside TorchScript."""

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if operation in _CONVOLUTIONS and not kwargs and args[0].ndim == 4:
            # The first nine arguments are those of both; `_convolution` adds cuDNN's switches.
            return _convolve(*args[:9])
        with self:
            parts = operation.decompose(*args, **kwargs)
        return operation(*args, **kwargs) if parts is NotImplemented else parts


def _convolve(
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    if not transposed and groups == 1 and image.shape[1] == 1:
        # oneDNN sums one channel in another order where the image is 3 to 6 pixels wide.
        image, weight = (torch.cat([one, torch.zeros_like(one)], dim=1) for one in (image, weight))
    if not transposed:
        image = image.contiguous(memory_format=torch.channels_last)
        return torch.ops.aten.mkldnn_convolution(  # type: ignore[no-any-return]
            image, weight, bias, padding, stride, dilation, groups
        )
    return torch.ops.mkldnn._convolution_transpose_pointwise(  # type: ignore[no-any-return]
        image, weight, bias, padding, output_padding, stride, dilation, groups, "none", [], ""
    )
