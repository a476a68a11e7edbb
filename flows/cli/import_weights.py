"""`dalle import-weights`: OpenAI's published dVAE instead of one of our own."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import ConfigFile, Preset, Settings, resolve

_WHERE = "A file, or an http(s) address, which needs its SHA-256."


def import_weights(
    encoder: Annotated[str, typer.Option(help=f"OpenAI's encoder.pkl. {_WHERE}")],
    decoder: Annotated[str, typer.Option(help=f"OpenAI's decoder.pkl. {_WHERE}")],
    encoder_sha256: Annotated[str, typer.Option(help="Expected SHA-256 of the encoder, in hex.")] = "",
    decoder_sha256: Annotated[str, typer.Option(help="Expected SHA-256 of the decoder, in hex.")] = "",
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
) -> None:
    """Read OpenAI's encoder.pkl and decoder.pkl, executing nothing that is in them, and keep them as safetensors.

    Prints the result as JSON. To use the weights, give its run_id to the commands that follow, e.g.
    `dalle run train_tokenizers --preset medium --set train_dvae.imported=RUN_ID`: they are looked at, not trained.
    OpenAI published the files at https://cdn.openai.com/dall-e/encoder.pkl and .../decoder.pkl.
    """
    import json

    from flows.cli.display import on_terminal
    from flows.runtime.run import execute_job

    inputs = named("encoder", encoder, encoder_sha256) | named("decoder", decoder, decoder_sha256)
    with on_terminal():
        config = resolve(preset or (None if config_file else "dalle-12b"), settings, config_file)
        result = execute_job("import_weights", config, inputs)
    typer.echo(json.dumps(result, indent=1))


def named(name: str, where: str, sha256: str) -> dict[str, str]:
    """Inputs of the job. A file is identified by what is in it, so that another file of that name is another run.

    Raises `ValueError` when the file does not exist.
    """
    from dalle_datasets.store.ids import file_sha256

    if where.startswith(("http://", "https://")):
        return {name: where} | ({f"{name}_sha256": sha256} if sha256 else {})
    path = Path(where).expanduser().absolute()
    if not path.is_file():
        raise ValueError(f"--{name} {where}: the file does not exist; download OpenAI's {name}.pkl first, or give its address")
    if not sha256:
        sha256 = file_sha256(path)
    return {name: str(path), f"{name}_sha256": sha256}
