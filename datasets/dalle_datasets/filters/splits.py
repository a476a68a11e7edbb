"""Assignment to train or validation by pixel hash: the split is stable and never shares a picture."""


def split_of(pixel_sha256: str, validation_share: float) -> str:
    """'validation' for about `validation_share` of all pictures, else 'train'."""
    return "validation" if int(pixel_sha256[:13], 16) < validation_share * 16**13 else "train"
