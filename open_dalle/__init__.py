"""Draw with a model folder: no data root, no Prefect, no DuckDB.

from open_dalle import DALLE
pictures = DALLE.load("my-model").generate("a red apple")  # best first
pictures[0].image.save("apple.png")

`dalle export FOLDER` makes such a folder from the trained networks of a data root.
"""

from dalle_model.generator import Picture
from dalle_model.model_folder import DALLE

__all__ = ["DALLE", "Picture"]
