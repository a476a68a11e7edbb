"""Which exceptions are a sentence for the person at the terminal, and with which exit status. Everything else is a bug."""

import sys

WORK_FAILED = 1
WRONG_REQUEST = 2
INTERRUPTED = 130

# By name, because importing their modules would load DuckDB or Prefect before `dalle --help` can answer.
_WORK_FAILED = {
    ("dalle_datasets.store.parquet", "SchemaError"),
    ("dalle_datasets.catalog.connection", "CatalogBusyError"),
    ("dalle_model.running.run_dir", "JobFailed"),
    ("flows.runtime.prefect_server", "PrefectServerFailed"),
}


def exit_status(error: BaseException) -> int | None:
    """1 if the work failed, 2 if the request was wrong, None for an error nobody foresaw."""
    if hasattr(error, "format_message"):  # Typer's own: an unknown option, a missing argument
        return WRONG_REQUEST
    for module, name in _WORK_FAILED:
        if module in sys.modules and isinstance(error, getattr(sys.modules[module], name)):
            return WORK_FAILED
    if isinstance(error, ValueError):
        return WRONG_REQUEST
    if isinstance(error, OSError):
        return WORK_FAILED
    return None


def one_line(error: BaseException) -> str:
    """The error as one sentence."""
    format_message = getattr(error, "format_message", None)
    text = format_message() if format_message else str(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    return " ".join(text.split()) or type(error).__name__
