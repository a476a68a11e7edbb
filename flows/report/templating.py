"""The pages' templates: Jinja2 with autoescape, so that text of strangers is text wherever it stands."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_TEMPLATES = Environment(
    loader=PackageLoader("flows.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_TEMPLATES.filters["in_words"] = lambda code: code.replace("_", " ")


def fill(template: str, **values: Any) -> Markup:
    """A template of `templates/` with these values; what is not markup is escaped."""
    return Markup(_TEMPLATES.get_template(template).render(values))


def piece(template: str, macro: str, *values: Any) -> Markup:
    """One macro of a template."""
    filled: Markup = getattr(_TEMPLATES.get_template(template).module, macro)(*values)
    return filled
