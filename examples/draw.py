"""Draw with a model folder, which `dalle export FOLDER` makes: python examples/draw.py FOLDER "two green pears" """

import sys
from pathlib import Path

from open_dalle import DALLE


def main(folder: str, prompt: str, num_images: str = "32") -> None:
    """Write the three best candidates of a caption into the working directory."""
    pictures = DALLE.load(folder).generate(prompt, num_images=int(num_images))  # best first
    for rank, picture in enumerate(pictures[:3], start=1):
        path = Path(f"drawn-{rank}.png")
        picture.image.save(path)
        print(f"{path}  CLIP score {picture.clip_score:.3f}, seed {picture.seed}")


if __name__ == "__main__":
    main(*sys.argv[1:])
