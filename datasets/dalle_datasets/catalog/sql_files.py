"""Finding and reading the `.sql` files: all SQL lives there, one intent a file, with a header that code reads.

    -- name: codebook_usage
    -- purpose: How often each image token appears, to spot dead codes.
    -- params: dvae_id (text, optional), limit (integer = 20)
    -- reads: codebook_usage, latest_artifacts
    -- returns: image_token, occurrences, share; least used first

`optional` parameters are null when they are not given; `= value` states a default. A check may say `-- finds: leftovers`
(`dalle_datasets.catalog.checks`). A file may also have
`-- identifiers: table`: names that stand in braces in its text and come from our code, never from a user.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PARAMETER_KINDS = ("text", "integer", "number", "boolean", "timestamp")
_PACKAGED = Path(__file__).parents[1] / "_sql"
_CHECKOUT = Path(__file__).parents[3] / "sql"
_PARAMETER = re.compile(r"(?P<name>[a-z0-9_]+) \((?P<kind>[a-z]+)(?P<rest>, optional| = [^()]+)?\)")
_NAME = re.compile(r"[a-z0-9_]+")
_HEADER = re.compile(r"--\s*(?P<key>[a-z]+):\s*(?P<value>.*)")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One named parameter of a query."""

    name: str
    kind: str
    """One of `PARAMETER_KINDS`."""
    is_optional: bool = False
    """Whether leaving it out binds null (or the default)."""
    default: str | None = None
    """As written in the header."""

    def __str__(self) -> str:
        tail = f" = {self.default}" if self.default is not None else ", optional" if self.is_optional else ""
        return f"{self.name} ({self.kind}{tail})"


@dataclass(frozen=True, slots=True)
class SqlFile:
    """One `.sql` file with its header."""

    folder: str
    name: str
    purpose: str
    parameters: tuple[Parameter, ...]
    identifiers: tuple[str, ...]
    reads: tuple[str, ...]
    returns: str
    finds: str
    """Of a check: `faults`, or `leftovers`."""
    text: str
    """The whole file, header included, so that what is recorded with a run explains itself."""

    def with_identifiers(self, **names: str) -> str:
        """The statement with each `{identifier}` replaced by one of our own table names."""
        assert set(names) == set(self.identifiers), f"sql/{self.folder}/{self.name}.sql takes {self.identifiers}, not {tuple(names)}"
        text = self.text
        for key, name in names.items():
            assert re.fullmatch(r"[a-z_]+", name), f"{name!r} is not a table name"
            text = text.replace("{" + key + "}", name)
        return text


def sql_root(packaged: Path = _PACKAGED, checkout: Path = _CHECKOUT) -> Path:
    """The folder of the `.sql` files: inside an installed wheel, else in the checkout. Raises `ValueError` when there is neither."""
    for folder in (packaged, checkout):
        if (folder / "migrations").is_dir():
            return folder
    raise ValueError(f"the SQL files are neither in {packaged} nor in {checkout}; install open-dalle again")


@cache
def read_sql(folder: str, name: str) -> SqlFile:
    """The file `sql/<folder>/<name>.sql`. Raises `ValueError` when it does not exist or its header is wrong."""
    path = sql_root() / folder / f"{name}.sql"
    if not _NAME.fullmatch(name) or not path.is_file():  # a setting may name a file: never one from elsewhere
        raise ValueError(f"there is no sql/{folder}/{name}.sql; known here: {', '.join(file.name for file in list_sql(folder))}")
    return parse_sql(folder, name, path.read_text())


def list_sql(folder: str) -> list[SqlFile]:
    """All files of one folder, by name."""
    return [read_sql(folder, path.stem) for path in sorted((sql_root() / folder).glob("*.sql"))]


def parse_sql(folder: str, name: str, text: str) -> SqlFile:
    """Read the header of a file's text. Raises `ValueError` naming the file and the line that is wrong."""
    where = f"sql/{folder}/{name}.sql"
    header: dict[str, str] = {}
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        if match := _HEADER.fullmatch(line):
            header[match["key"]] = match["value"].strip()
    if header.get("name") != name:
        raise ValueError(f"{where}: its header says name: {header.get('name')}; it must be the file's own name")
    if not header.get("purpose"):
        raise ValueError(f"{where}: the header has no purpose; say in one sentence what it answers")
    return SqlFile(
        folder=folder,
        name=name,
        purpose=header["purpose"],
        parameters=tuple(_parse_parameters(header.get("params", ""), where)),
        identifiers=_names(header.get("identifiers", "")),
        reads=_names(header.get("reads", "")),
        returns=header.get("returns", ""),
        finds=header.get("finds", "faults"),
        text=text,
    )


def _names(value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _parse_parameters(value: str, where: str) -> list[Parameter]:
    parameters = []
    for item in filter(None, (part.strip() for part in re.split(r",(?![^()]*\))", value))):
        match = _PARAMETER.fullmatch(item)
        if not match or match["kind"] not in PARAMETER_KINDS:
            raise ValueError(f"{where}: parameter {item!r} is not written as 'name (kind)'; kinds are {', '.join(PARAMETER_KINDS)}")
        rest = match["rest"] or ""
        default = rest.removeprefix(" = ").strip() if rest.startswith(" = ") else None
        parameters.append(Parameter(match["name"], match["kind"], is_optional=bool(rest), default=default))
    return parameters


def quoted(text: str) -> str:
    """A SQL string literal, for the statements that take no parameters."""
    return "'" + text.replace("'", "''") + "'"
