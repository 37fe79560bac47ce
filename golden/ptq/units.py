# SPDX-License-Identifier: Apache-2.0
"""A network as a chain of units: what one gives is all that the next one reads.

The first unit is the patch embedding (of a ViT with class token and positions), then every block
(of a Swin also patch merging), then the last norm with the classifier.
"""

__all__ = ["HEAD", "Unit", "units"]

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from golden.float.swin import PatchMerging, Swin
from golden.float.vit import Vit

HEAD = "head"


@dataclass(frozen=True)
class Unit:
    """A part of a network.

    Attributes
    ----------
    name
        Of its modules, but for the last norm, which goes with "head".
    run
        Its output for the one of the unit before, images for the first.
    """

    name: str
    run: Callable[[Tensor], Tensor]

    def owns(self, tensor: str) -> bool:
        """Whether a parameter or a site of this name is part of it."""
        return (tensor.startswith(f"{self.name}.") or tensor == self.name
                or (self.name == HEAD and tensor.split(".")[0] in ("norm", "pool"))
                or (self.name == "patch_embed"
                    and tensor.split(".")[0] in ("embedding", "norm_pre")))


def units(model: Vit | Swin) -> tuple[Unit, ...]:
    """Return the units of a network, in order; run one after the other they are the network."""
    if isinstance(model, Vit):
        return (Unit("patch_embed", model.tokens),
                *(Unit(f"blocks.{n}", block) for n, block in enumerate(model.blocks)),
                Unit(HEAD, model.classify))
    found = [Unit("patch_embed", model.patch_embed)]
    for n, layer in enumerate(model.layers):
        if isinstance(layer.downsample, PatchMerging):
            found.append(Unit(f"layers.{n}.downsample", layer.downsample))
        found += [Unit(f"layers.{n}.blocks.{k}", block)
                  for k, block in enumerate(layer.get_submodule("blocks").children())]

    def pooled(x: Tensor) -> Tensor:
        logits: Tensor = model.head(model.norm(x))
        return logits

    return (*found, Unit(HEAD, pooled))
