"""Which code this is: the release, and a fingerprint of the sources, which differs as soon as a line does."""

import hashlib
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("open_dalle", "dalle_model", "dalle_datasets", "flows")


@cache
def code_version() -> str:
    """`0.1.0+3f0c9a51`: the same on two machines if the files of all packages are."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        spec = find_spec(package)  # which imports none of them
        assert spec is not None
        assert spec.submodule_search_locations
        folder = Path(spec.submodule_search_locations[0])
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes())
    return f"{metadata.version('open-dalle')}+{digest.hexdigest()[:8]}"
