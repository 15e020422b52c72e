"""The optimizer that trains the classifier: Adam with as little memory traffic as the method allows."""

import torch
from torch import Tensor
from torch.optim.adam import adam

from celebflow.classifier.layers import BlockwiseLinear
from celebflow.classifier.model import Classifier


class ClassifierAdam:
    """torch.optim.Adam (Kingma and Ba, 2015) with its defaults, for the parameters of a classifier that are not frozen.

    With a weight decay it is torch.optim.AdamW (Loshchilov and Hutter, 2019). `learning_rate` may change between
    steps. The arithmetic is torch's own fused kernel.

    The gradient of a layer's weight is never whole: each block is computed, applied while the processor's cache holds
    it, and dropped.
    """

    def __init__(self, classifier: Classifier, learning_rate: float, weight_decay: float) -> None:
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.step_count = 0
        self._layers = {
            f"{name}.weight": module
            for name, module in classifier.named_modules()
            if isinstance(module, BlockwiseLinear) and module.weight.requires_grad
        }
        self.parameters: dict[str, Tensor] = {
            name: parameter for name, parameter in classifier.named_parameters() if parameter.requires_grad
        }
        self.means = {name: torch.zeros_like(parameter) for name, parameter in self.parameters.items()}
        self.squares = {name: torch.zeros_like(parameter) for name, parameter in self.parameters.items()}

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that training changes, by name: the parameters and Adam's two moments of each."""
        found = {}
        for group, tensors in (("parameter", self.parameters), ("mean", self.means), ("square", self.squares)):
            for name, tensor in tensors.items():
                found[f"{group}.{name}"] = tensor
        return found

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter from the gradients of the last backward pass, and drop the gradients.

        Raises RuntimeError when no backward pass has reached a parameter.
        """
        for name, layer in self._layers.items():
            weight = self.parameters[name]
            mean = self.means[name]
            square = self.squares[name]
            for block, block_gradient in layer.gradient_blocks():
                self._update([weight[block]], [block_gradient], [mean[block]], [square[block]])
        others = [name for name in self.parameters if name not in self._layers]
        self._update(
            [self.parameters[name] for name in others],
            [_require_gradient(self.parameters[name]) for name in others],
            [self.means[name] for name in others],
            [self.squares[name] for name in others],
        )
        for name in others:
            self.parameters[name].grad = None
        self.step_count += 1

    def _update(
        self, parameters: list[Tensor], gradients: list[Tensor], means: list[Tensor], squares: list[Tensor]
    ) -> None:
        device = parameters[0].device
        steps = [torch.tensor(float(self.step_count), device=device) for _ in parameters]  # adam increments them
        adam(
            parameters,
            gradients,
            means,
            squares,
            [],
            steps,
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


def _require_gradient(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        raise RuntimeError("no backward pass has reached this parameter")
    return parameter.grad
