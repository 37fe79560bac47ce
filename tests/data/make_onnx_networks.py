# SPDX-License-Identifier: Apache-2.0
"""Write ``onnx_networks.zip``: small networks of timm and Hugging Face as PyTorch exports them.

Run it in an environment with the versions of `VERSIONS` (the tests need none of them, but the file)
and torch's two exporters; parameters follow from names (`tests.data.make_timm_reference`).

    python -m tests.data.make_onnx_networks
"""

__all__ = ["ARCHIVE", "NAMES", "SWIN_OF_TIMM", "VIT_OF_TIMM", "model", "stored", "value"]

import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from tests.data.make_timm_reference import draw, pretend_torchvision

ARCHIVE = Path(__file__).parent / "onnx_networks.zip"
VERSIONS = {"timm": "1.0.31", "transformers": "5.24.0", "onnxscript": "0.7.2"}

VIT_OF_TIMM: Mapping[str, Any] = {
    "img_size": 12, "patch_size": 4, "in_chans": 2, "embed_dim": 6, "depth": 2, "num_heads": 2,
    "mlp_ratio": 2, "num_classes": 3}
SWIN_OF_TIMM: Mapping[str, Any] = {
    "img_size": 24, "patch_size": 2, "in_chans": 1, "embed_dim": 4, "depths": (2, 1),
    "num_heads": (1, 2), "window_size": 6, "mlp_ratio": 2.0, "num_classes": 3}
_DEIT, _TIMM_VIT = "deit_tiny_patch16_224", "vit_base_patch16_224"
_TIMM_SWIN = "swin_tiny_patch4_window7_224"
_HF: Mapping[str, Any] = {"hidden_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2,
                          "intermediate_size": 12, "image_size": 12, "patch_size": 4,
                          "num_channels": 2, "num_labels": 3}
_HF_SWIN: Mapping[str, Any] = {"image_size": 24, "patch_size": 2, "num_channels": 1,
                               "embed_dim": 4, "depths": [2, 1], "num_heads": [1, 2],
                               "window_size": 6, "mlp_ratio": 2.0, "num_labels": 3}


@dataclass(frozen=True)
class _Case:
    """A class, its arguments, and how it is exported: opset, the new exporter, any batch."""

    source: str
    arguments: Mapping[str, Any]
    opset: int
    new: bool = False
    batch: bool = False
    size: int = field(default=0, kw_only=True)


_CASES: Mapping[str, _Case] = {
    # Networks that are understood.
    "vit_17": _Case(_TIMM_VIT, VIT_OF_TIMM, 17),
    "vit_17_batch": _Case(_DEIT, {**VIT_OF_TIMM, "in_chans": 3}, 17, batch=True),
    "vit_14_norms_of_operators": _Case(_DEIT, VIT_OF_TIMM, 14),
    "vit_18_new": _Case(_DEIT, VIT_OF_TIMM, 18, new=True, batch=True),
    "vit_23_attention_operator": _Case(_DEIT, VIT_OF_TIMM, 23, new=True),
    "vit_layer_scale": _Case(_TIMM_VIT, {**VIT_OF_TIMM, "init_values": 0.1}, 17),
    "swin_17": _Case(_TIMM_SWIN, SWIN_OF_TIMM, 17),
    "swin_13_batch": _Case(_TIMM_SWIN, {**SWIN_OF_TIMM, "depths": (2,), "num_heads": (2,)}, 13,
                           batch=True),
    "swin_20_new": _Case(_TIMM_SWIN, {**SWIN_OF_TIMM, "img_size": 16, "window_size": 4}, 20,
                         new=True),
    "hf_vit": _Case("ViT", _HF, 17, batch=True),
    "hf_vit_new": _Case("ViT", _HF, 20, new=True),
    "hf_swin": _Case("Swin", _HF_SWIN, 17, batch=True),
    # More tokens and other heads.
    "deit_distilled": _Case("deit_tiny_distilled_patch16_224", VIT_OF_TIMM, 17),
    "vit_registers": _Case(_TIMM_VIT, {**VIT_OF_TIMM, "reg_tokens": 3, "no_embed_class": True}, 17),
    "vit_mean": _Case(_TIMM_VIT, {**VIT_OF_TIMM, "class_token": False, "global_pool": "avg"}, 17),
    "vit_mean_behind_norm": _Case(_TIMM_VIT, {**VIT_OF_TIMM, "global_pool": "avg",
                                              "fc_norm": False}, 17),
    "clip": _Case("vit_base_patch16_clip_224", VIT_OF_TIMM, 17),
    "hf_deit_two_heads": _Case("DeiT", _HF, 17, batch=True),
    # Networks that are none of them.
    "clip_quick_gelu": _Case("vit_base_patch16_clip_quickgelu_224", VIT_OF_TIMM, 17),
    "vit_norms_of_queries": _Case(_TIMM_VIT, {**VIT_OF_TIMM, "qk_norm": True}, 17),
    "swin_v2": _Case("swinv2_tiny_window8_256", {**SWIN_OF_TIMM, "depths": (1,),
                                                 "num_heads": (1,)}, 17),
    "beit": _Case("beit_base_patch16_224", {**VIT_OF_TIMM, "depth": 1}, 17),
    "resnet": _Case("test_resnet", {"in_chans": 1, "num_classes": 3}, 17, size=32),
}
#: Names of all networks in the archive.
NAMES = tuple(_CASES)


class _Logits(nn.Module):
    """Hugging Face's classes give more than logits."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.inner(pixel_values=image).logits
        return found


def value(name: str, shape: tuple[int, ...]) -> Tensor:
    """Draw a parameter, by its name."""
    norm = "norm" in name and name.endswith("weight")
    scale = 0.3 if len(shape) < 2 else 0.5 if "token" in name else (3 / prod(shape[1:])) ** 0.5
    return draw(name, shape, scale, 1.0 if norm or name.endswith("running_var") else 0.0)


def model(source: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a network of timm or Hugging Face, with parameters that follow from their names."""
    if source[0].isupper():
        import transformers

        kind = {"DeiT": "DeiTForImageClassificationWithTeacher"}.get(
            source, f"{source}ForImageClassification")
        made: nn.Module = getattr(transformers, kind)(
            getattr(transformers, f"{source}Config")(**arguments))
    else:
        import timm

        made = timm.create_model(source, **arguments)
    for name, item in (*made.named_parameters(), *made.named_buffers()):
        if not item.is_floating_point() or "mask" in name or "coords" in name:
            continue
        item.data = value(name, tuple(item.shape))
        if "resnet" in source:   # only its operators matter, and zeros are small in an archive
            item.data.zero_()
    return made.eval()


def stored(name: str) -> bytes:
    """Return the ONNX file of a network."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        return archive.read(f"{name}.onnx")


def _plain(made: onnx.ModelProto) -> onnx.ModelProto:
    """Leave out where the exporter was run, and other words."""
    def parts(graph: onnx.GraphProto) -> Iterator[Any]:
        yield graph
        for many in (graph.node, graph.initializer, graph.input, graph.output, graph.value_info):
            yield from many

    for item in (made, *parts(made.graph)):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    made.graph.ClearField("value_info")
    return made


def _exported(case: _Case, path: Path) -> bytes:
    network, arguments = model(case.source, case.arguments), case.arguments
    size = case.size or arguments.get("img_size") or arguments["image_size"]
    channels = arguments.get("in_chans") or arguments["num_channels"]
    if case.source[0].isupper():
        network = _Logits(network)
    more: dict[str, Any] = {"external_data": False} if case.new else {}
    if case.batch:
        more |= {"dynamic_shapes": ({0: torch.export.Dim("batch")},)} if case.new else {
            "dynamic_axes": {"image": {0: "batch"}}}
    torch.onnx.export(network, (torch.zeros(1, channels, size, size),), str(path),
                      dynamo=case.new, opset_version=case.opset, input_names=["image"], **more)
    return _plain(onnx.load(path)).SerializeToString()


def main() -> int:
    """Export all and write the archive."""
    warnings.simplefilter("ignore")
    pretend_torchvision()
    with tempfile.TemporaryDirectory() as folder, \
            zipfile.ZipFile(ARCHIVE, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, case in _CASES.items():
            data = _exported(case, Path(folder) / "network.onnx")
            archive.writestr(zipfile.ZipInfo(f"{name}.onnx", (2024, 1, 1, 0, 0, 0)), data,
                             zipfile.ZIP_DEFLATED)
            print(name, len(data), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
