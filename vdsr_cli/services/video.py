"""The use case of a video: each frame enlarged, all else copied.

Video ─► a frame at a time ─► sampling.pipeline ─► VideoFile

The noise depends on the place in the picture alone, and so is that of every frame: what stays
still in the input stays still in the output, at any temperature.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vdsr_cli.images import Picture
from vdsr_cli.images.video import Video, VideoFile
from vdsr_cli.runtime import Runtime
from vdsr_cli.sampling.pipeline import UpscalePlan, draw_rows


def frame_size(video: Video, height: int, width: int) -> tuple[int, int]:
    """The size of enlarged frames: that wanted, less a row or column where chroma goes in pairs."""
    yuv = video.coding.yuv
    down, across = (2, 2) if video.coding.is_grey else (yuv.down, yuv.across)
    return max(down, height - height % down), max(across, width - width % across)


def upscale_frames(
    video: Video,
    file: VideoFile,
    plan: UpscalePlan,
    runtime: Runtime,
    on_frames: Callable[[int], None],
) -> None:
    """Enlarges the frames that a file does not have yet; one that is the one before it is not
    sampled again.

    Args:
        on_frames: told how many have just been finished, or need not be drawn.
    """
    before: Picture | None = None
    rgb: Tensor | None = None
    first = file.done
    on_frames(first)
    for index, frame in enumerate(video.read()):
        if index < first:
            continue
        picture = frame.picture()
        if rgb is None or before is None or not torch.equal(picture.rgb, before.rgb):
            strips = [rows.rgb[0].cpu() for rows in draw_rows(picture, plan, runtime)]
            rgb, before = torch.cat(strips, dim=1), picture
        file.put(rgb, frame)
        on_frames(1)
