"""Train or validation, decided by the picture itself: stable when pairs come and go, and no picture is in both."""


def split_of(pixel_sha256: str, validation_share: float) -> str:
    """'validation' for about `validation_share` of all pictures, else 'train'."""
    return "validation" if int(pixel_sha256[:13], 16) < validation_share * 16**13 else "train"
