"""The optimizer that trains networks: Adam with as little memory traffic as the method allows."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.adam import adam

from celebflow.classifier.layers import BlockwiseLinear
from celebflow.classifier.network import Network


class NetworkAdam:
    """torch.optim.Adam (Kingma and Ba, 2015) with its defaults, for the parameters of a network that are not frozen.

    With a weight decay it is torch.optim.AdamW (Loshchilov and Hutter, 2019). `learning_rate` may change between
    steps. The arithmetic is torch's own fused kernel.

    The gradient of a layer's weight is never whole: each block is computed, applied while the processor's cache holds
    it, and dropped.
    """

    def __init__(self, network: Network, learning_rate: float, weight_decay: float) -> None:
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.step_count = 0
        self._layers = {
            f"{name}.weight": module
            for name, module in network.named_modules()
            if isinstance(module, BlockwiseLinear) and module.weight.requires_grad
        }
        named = network.named_parameters()
        self.parameters: dict[str, Tensor] = {name: value for name, value in named if value.requires_grad}
        self.means = {name: torch.zeros_like(parameter) for name, parameter in self.parameters.items()}
        self.squares = {name: torch.zeros_like(parameter) for name, parameter in self.parameters.items()}

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that training changes, by name: the parameters and Adam's two moments of each."""
        groups = {"parameter": self.parameters, "mean": self.means, "square": self.squares}
        return {f"{group}.{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter from the gradients of the last backward pass, and drop the gradients.

        Raises RuntimeError when no backward pass has reached a parameter.
        """
        for name, parameter in self.parameters.items():
            for block, gradient in self._list_gradients(name):
                adam(
                    [parameter[block]],
                    [gradient],
                    [self.means[name][block]],
                    [self.squares[name][block]],
                    [],
                    [torch.tensor(float(self.step_count), device=parameter.device)],  # adam increments it
                    fused=True,
                    amsgrad=False,
                    maximize=False,
                    lr=self.learning_rate,
                    beta1=0.9,
                    beta2=0.999,
                    eps=1e-8,
                    weight_decay=self.weight_decay,
                    decoupled_weight_decay=self.weight_decay > 0,
                )
            parameter.grad = None
        self.step_count += 1

    def _list_gradients(self, name: str) -> Iterable[tuple[slice, Tensor]]:
        """Return the gradient of a parameter in blocks of rows, or whole."""
        if name in self._layers:
            return self._layers[name].gradient_blocks()
        gradient = self.parameters[name].grad
        if gradient is None:
            raise RuntimeError("no backward pass has reached this parameter")
        return [(slice(None), gradient)]
