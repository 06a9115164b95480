"""Segment Anything from a local checkpoint: what lies in a box, as a mask.

Only the networks of `transformers` are used. Its image processors need torchvision, so the square that the network
looks at is made by `ops.sam_frame`, and normalisation lies in the network, as everywhere in the house. The networks
themselves do without torchvision, but where one is installed, transformers imports it with them, and one that does not
belong to the installed torch breaks that import: so it is hidden meanwhile.

Source: S2; Kirillov et al., Segment Anything, ICCV 2023 (arXiv:2304.02643); Ravi et al., SAM 2, 2024
(arXiv:2408.00714).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from waferlens.errors import InputError
from waferlens.extras import require
from waferlens.ops.sam_frame import MEAN_GREY

SCALE_GREY = (58.395, 57.12, 57.375)
"""Standard deviations of red, green, blue of ImageNet [grey]"""
FAMILIES = {"sam": ("SamModel", False), "sam2": ("Sam2Model", True), "sam2_video": ("Sam2Model", True)}
"""By `model_type` of a checkpoint: the class of transformers, and whether images are stretched to its square. SAM 2 is
published with the parts that follow objects through videos; these are left out."""


class SamRoiNet(nn.Module):
    """Normalisation, encoder and mask decoder as one network.

    Args:
        network: `SamModel` or `Sam2Model`.
        side_px: Side of the square it looks at [px]
        stretched: Whether images are stretched to that square or filled up.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, side_px: int, *, stretched: bool) -> None:
        super().__init__()
        self.network, self.side_px, self.stretched = network, side_px, stretched
        self.register_buffer("mean", torch.tensor(MEAN_GREY)[None, :, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE_GREY)[None, :, None, None], persistent=False)

    def forward(self, image: Float[Tensor, "1 3 s s"], box: Float[Tensor, "1 4"]) -> tuple[Tensor, Tensor]:
        """Logits of the mask `1 1 m m` over the whole square, and the overlap it expects of it `1 1`.

        Args:
            image: On the square, 0..255 [grey]
            box: x0 y0 x1 y1, outer edges, on the square [px]
        """
        told = self.network(
            pixel_values=(image - self.mean) / self.scale, input_boxes=box[:, None], multimask_output=False
        )
        return told.pred_masks[:, 0], told.iou_scores[:, 0]


def load_sam(folder: str | Path) -> SamRoiNet:
    """The network of a checkpoint folder of `transformers`: `config.json` and `model.safetensors`.

    Nothing is fetched, and weights that are pickled are not read.

    Raises:
        InputError: the folder holds no such checkpoint, its weights do not fill the network, or transformers is too
            old for it.
        MissingExtraError: transformers is not installed.
    """
    folder = Path(folder)
    kind, config = _kind_of(folder)
    with _without_torchvision():
        require("sam", "transformers")
    name, stretched = FAMILIES[kind]
    network, told = _read(name, folder)
    lacking = sorted([*told["missing_keys"], *(str(one) for one in told.get("mismatched_keys", ()))])
    if lacking:
        raise InputError(folder, f"leaves {len(lacking)} tensors of the {name} unfilled, {lacking[0]} first")
    side = config["vision_config"].get("image_size") or network.config.prompt_encoder_config.image_size
    return SamRoiNet(network.float().eval(), _side(side, folder), stretched=stretched)


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Lets nothing find torchvision, if nobody has imported it yet."""
    if "torchvision" in sys.modules:
        yield
        return
    sys.modules["torchvision"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torchvision"]


def _read(name: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    """A network with its weights, and what transformers says of these."""
    import transformers
    from transformers.utils import logging

    with _without_torchvision():
        kind = getattr(transformers, name, None)  # this is when its module is imported
    if kind is None:
        raise InputError(folder, f"needs {name}, which transformers {transformers.__version__} lacks; take a newer one")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return kind.from_pretrained(  # type: ignore[no-any-return]
            folder, local_files_only=True, use_safetensors=True, attn_implementation="eager", output_loading_info=True
        )
    except OSError as wrong:  # what transformers raises where a file is missing
        raise InputError(folder, f"its weights cannot be read: {str(wrong).splitlines()[0]}") from wrong
    finally:
        if shown:
            logging.enable_progress_bar()


def _kind_of(folder: Path) -> tuple[str, dict[str, Any]]:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as wrong:
        raise InputError(folder, f"is no checkpoint of SAM: its config.json cannot be read ({wrong})") from wrong
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in FAMILIES:
        raise InputError(folder, f"is a checkpoint of {kind!r}; known: {', '.join(FAMILIES)}")
    return kind, config


def _side(told: Any, folder: Path) -> int:
    sides = [told] if isinstance(told, int) else list(told)
    if len(set(sides)) != 1:
        raise InputError(folder, f"looks at images of {sides} px; expected a square")
    return int(sides[0])
