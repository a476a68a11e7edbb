"""Hook of mkdocs: pages that stand beside the code they are about are part of the site, without a copy in `docs/`.

A link to a page of the site is kept; one to a file that is not a page becomes its path, because the site does not know where the
repository is published.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "benchmarks/RESULTS.md",
    "sql/README.md", "flows/README.md", "dalle_model/README.md", "datasets/README.md", "examples/README.md",
    "examples/emoji_styles/README.md",
)  # fmt: skip
FOLDER = "repository"
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages under `repository/`."""
    for name in PAGES:
        if (ROOT / name).exists():
            files.append(File.generated(config, f"{FOLDER}/{name}", content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead the links of a page to where they are on the site."""
    own = page.file.src_uri
    stands_at = own.removeprefix(f"{FOLDER}/") if own.startswith(f"{FOLDER}/") else f"docs/{own}"

    def lead(match: re.Match[str]) -> str:
        is_image, text, link = match.groups()
        target, hash_sign, anchor = link.partition("#")
        if not target or "://" in target or target.startswith("mailto:"):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(stands_at), target))
        folder_page = posixpath.join(path, "README.md")
        path = folder_page if folder_page in PAGES else path
        on_site = path.removeprefix("docs/") if path.startswith("docs/") else f"{FOLDER}/{path}"
        if files.get_file_from_path(on_site) is None:
            return f"`{path}`"
        return f"{is_image}[{text}]({posixpath.relpath(on_site, posixpath.dirname(own) or '.')}{hash_sign}{anchor})"

    return _LINK.sub(lead, markdown)
