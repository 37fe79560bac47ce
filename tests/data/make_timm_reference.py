# SPDX-License-Identifier: Apache-2.0
"""Write ``timm_reference.json``: what timm's own networks compute from weights that need no file.

Run it in an environment with timm 1.0.31 (the version is in the file); the tests don't need timm.
They take from this module how parameters and images follow from a seed: from the raw output of a
PCG64 generator per tensor, seeded by the tensor's name, so that neither the order of parameters nor
a library's random distributions matter.

    python tests/data/make_timm_reference.py
"""

__all__ = ["CASES", "FAMILIES", "REFERENCE", "draw", "images", "listing", "parameters"]

import enum
import hashlib
import importlib.util
import json
import sys
import types
import zlib
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

REFERENCE = Path(__file__).parent / "timm_reference.json"
SEED = 20240229
VALUES = 250
"""Logits kept of each image."""

FAMILIES = tuple(f"{family}_patch16_224" for family in (
    "vit_small", "vit_base", "vit_large", "deit_tiny", "deit_small", "deit_base")
) + tuple(f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base")
) + tuple(f"{family}_patch16_384" for family in ("vit_small", "vit_base", "vit_large", "deit_base"))

# Name of a timm network, the arguments that reduce it in timm's words, and the images.
CASES: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("vit_small_patch16_224", {}, 1),
    ("deit_tiny_patch16_224", {}, 1),
    ("swin_tiny_patch4_window7_224", {}, 1),
    ("vit_small_patch16_224", {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3,
                               "num_heads": 3, "num_classes": 12}, 3),
    ("deit_tiny_patch16_224", {"img_size": 48, "embed_dim": 16, "depth": 2, "num_heads": 2,
                               "mlp_ratio": 2, "in_chans": 1, "num_classes": 10}, 3),
    # 14 and 7 rows of tokens: shifted windows, then one window.
    ("swin_tiny_patch4_window7_224", {"img_size": 56, "embed_dim": 12, "depths": (2, 2),
                                      "num_heads": (2, 4), "num_classes": 12}, 3),
    # 20, 10 and 5 rows, odd window, odd depth.
    ("swin_tiny_patch4_window7_224", {"img_size": 40, "patch_size": 2, "window_size": 5,
                                      "embed_dim": 8, "depths": (2, 3, 2), "in_chans": 1,
                                      "num_heads": (1, 2, 4), "num_classes": 12}, 3),
    # 16, 8 and 4 rows: an even shift, one window, a window that shrinks to the image.
    ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 8, "embed_dim": 8,
                                      "depths": (2, 2, 2), "num_heads": (1, 2, 2),
                                      "mlp_ratio": 3, "num_classes": 12}, 3),
    # A shape that no name has.
    ("deit_tiny_patch16_224", {"img_size": 96, "patch_size": 8, "embed_dim": 96, "depth": 3,
                               "num_heads": 3, "num_classes": 5}, 2),
)


def draw(name: str, shape: tuple[int, ...], scale: float, offset: float = 0.0) -> Tensor:
    """Uniform float32 in ``offset - scale .. offset + scale``, from the name alone."""
    raw = np.random.PCG64([SEED, zlib.crc32(name.encode())]).random_raw(int(np.prod(shape)))
    unit = (raw >> 40).astype(np.float64) / 2**23 - 1   # exact
    return torch.from_numpy((unit * scale + offset).astype(np.float32)).reshape(shape)


def parameters(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Parameters of a network by name: none of them zero, activations near deviation 1."""
    state = {}
    for name, shape in shapes.items():
        if name in ("cls_token", "pos_embed") or name.endswith("bias_table"):
            state[name] = draw(name, shape, 0.5)
        elif len(shape) == 1:
            state[name] = draw(name, shape, 0.3, 1.0 if name.endswith("weight") else 0.0)
        else:
            state[name] = draw(name, shape, (3 * shape[0] / int(np.prod(shape))) ** 0.5)
    return state


def images(count: int, channels: int, size: int) -> Tensor:
    """Network input of unit deviation, float32 ``[count, channels, size, size]``."""
    return draw(f"images {count} {channels} {size}", (count, channels, size, size), 3**0.5)


def listing(state: Mapping[str, Tensor]) -> dict[str, str | int]:
    """Digest of every name and shape, and the number of parameters."""
    text = "\n".join(f"{name} {list(value.shape)}" for name, value in sorted(state.items()))
    return {"sha256": hashlib.sha256(text.encode()).hexdigest(), "tensors": len(state),
            "parameters": sum(value.numel() for value in state.values())}


def pretend_torchvision() -> None:
    """Let timm be imported without torchvision, which only its data loaders use."""
    if importlib.util.find_spec("torchvision"):
        return

    class Anything(types.ModuleType):
        def __getattr__(self, name: str) -> type:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

    modes = ("NEAREST", "NEAREST_EXACT", "BILINEAR", "BICUBIC", "BOX", "HAMMING", "LANCZOS")
    for name in ("", ".transforms", ".transforms.functional", ".datasets", ".datasets.folder",
                 ".ops", ".ops.misc", ".models", ".models.feature_extraction"):
        module = Anything(f"torchvision{name}")
        module.__path__ = []
        module.__spec__ = ModuleSpec(module.__name__, None)
        module.InterpolationMode = enum.Enum("InterpolationMode", [(m, m.lower()) for m in modes])
        sys.modules[module.__name__] = module
        parent, _, child = module.__name__.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


def main() -> int:
    """Compute in float64 and write the file."""
    pretend_torchvision()
    import timm

    names = {}
    for name in FAMILIES:
        with torch.device("meta"):
            model = timm.create_model(name)
        names[name] = listing(model.state_dict())
        names[name]["heads"] = [module.num_heads for module in model.modules()
                                if hasattr(module, "num_heads")]
        config = timm.get_pretrained_cfg(name)
        names[name] |= {key: getattr(config, key) for key in
                        ("input_size", "crop_pct", "interpolation", "mean", "std")}
    outputs = []
    for name, changes, count in CASES:
        model = timm.create_model(name, **changes).eval()
        model.load_state_dict(parameters({key: tuple(value.shape)
                                          for key, value in model.state_dict().items()}))
        channels, size = changes.get("in_chans", 3), changes.get("img_size", 224)
        with torch.inference_mode():
            logits = model.double()(images(count, channels, size).double())
        outputs.append({"name": name, "changes": changes, "images": count,
                        "logits": logits[:, :VALUES].tolist()})
        print(name, changes, f"deviation of the logits {logits.std():.3f}")
    REFERENCE.write_text(json.dumps({"timm": timm.__version__, "torch": torch.__version__,
                                     "seed": SEED, "networks": names, "outputs": outputs},
                                    indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
