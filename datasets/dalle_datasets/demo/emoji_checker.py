"""The strict checker behind the demo's agreement figures: it names the scene that a picture shows.

The answer is the nearest of all scenes, pixel by pixel. That is a forced choice: a broken glyph is still nearest to
something, so the checker accepts some pictures that a person would not. It never sees scores, captions or candidates' order.
"""

import numpy as np
from numpy.typing import NDArray

from dalle_datasets.demo.emoji_scenes import Scene, all_scenes, draw_scene

SIDE = 32
ATTRIBUTES = ("object", "color", "background", "layout")
_PICTURES_AT_ONCE = 1_024


class EmojiChecker:
    """Holds a template of every scene (44 MB); build one and use it for many pictures."""

    def __init__(self) -> None:
        self.scenes = all_scenes()
        # Drawn larger and averaged down, as the published pictures are on their way to the networks.
        self._templates = np.stack([shrink(draw_scene(scene, 2 * SIDE)) for scene in self.scenes]).reshape(len(self.scenes), -1)
        self._norms = (self._templates**2).sum(1)

    def recognise(self, pictures: NDArray[np.uint8]) -> list[Scene]:
        """The scene nearest to each picture, uint8 [N, S, S, 3] with S a multiple of 32.

        Raises `ValueError` for another shape or type.
        """
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3 or pictures.shape[1] != pictures.shape[2]:
            raise ValueError(f"pictures are {pictures.dtype} {list(pictures.shape)}; the checker reads uint8 [N, S, S, 3]")
        if pictures.shape[1] % SIDE:
            raise ValueError(f"pictures have a side of {pictures.shape[1]} pixels; the checker reads multiples of {SIDE}")
        nearest: list[Scene] = []
        for start in range(0, len(pictures), _PICTURES_AT_ONCE):
            flat = np.stack([shrink(picture) for picture in pictures[start : start + _PICTURES_AT_ONCE]]).reshape(-1, SIDE * SIDE * 3)
            distances = self._norms - 2 * flat @ self._templates.T  # without the picture's own norm, which changes no order
            nearest += [self.scenes[i] for i in distances.argmin(1)]
        return nearest


def right_attributes(seen: Scene, asked: Scene) -> dict[str, bool]:
    """Which of the four attributes agree, and `all`. A glyph's own colour is right only where no colour was asked for."""
    right = {name: getattr(seen, name) == getattr(asked, name) for name in ATTRIBUTES}
    return {**right, "all": all(right.values())}


def shrink(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Averages of square blocks, float32 [32, 32, 3] in [0, 1]."""
    block = picture.shape[0] // SIDE
    blocks = picture.reshape(SIDE, block, SIDE, block, 3).astype(np.float32)
    means: NDArray[np.float32] = blocks.mean((1, 3)) / 255
    return means
