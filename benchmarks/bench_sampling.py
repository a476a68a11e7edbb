"""Whole pictures by the sampler: `python benchmarks/bench_sampling.py`.

References, run in the same process: the same size with full attention and a cache of everything (what other
implementations do at best), and no cache at all (the full forward pass for every token; a few tokens are timed and extrapolated).
Pictures per CPU second of one thread, without the dVAE's decoder.
"""

import argparse
import time
from dataclasses import replace
from functools import partial

import torch
from bench_train import SIZES
from timing import least_cpu_seconds, print_ratios

from dalle_model.config.generation import SamplingConfig
from dalle_model.sampling.generate import candidate_seeds, sample_image_tokens
from dalle_model.transformer import DALLETransformer
from dalle_model.transformer.cache import ImageDecoder, read_text


def cache_bytes(model: DALLETransformer) -> int:
    """Image keys and values of one candidate, float32."""
    text = torch.zeros(1, model.stream.max_text_tokens, dtype=torch.int64)
    with torch.inference_mode():
        decoder = ImageDecoder(model, read_text(model, text), num_candidates=1)
    return sum(tensor.nbytes for cache in decoder.caches for tensor in vars(cache).values() if torch.is_tensor(tensor))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="*", choices=[*SIZES], default=[*SIZES])
    parser.add_argument("--candidates", nargs="*", type=int, default=[1, 16, 64])
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for size in arguments.sizes:
        config, stream, _ = SIZES[size]
        torch.manual_seed(0)
        sparse = DALLETransformer(config, stream).eval()
        full = DALLETransformer(replace(config, attention="full"), stream).eval()
        text = torch.randint(stream.text_vocab_size, (1, stream.max_text_tokens))
        for candidates in arguments.candidates:
            settings, seeds = SamplingConfig(batch_size=candidates), candidate_seeds(0, ["a prompt"], candidates)
            alternatives = {
                name: partial(sample_image_tokens, model, text, candidates, settings, seeds)
                for name, model in {"sparse cache": sparse, "full attention, cache": full}.items()
            }
            seconds = least_cpu_seconds(alternatives, arguments.repeats)
            if candidates == 1:
                image = torch.zeros(1, stream.num_image_tokens, dtype=torch.int64)
                started = time.process_time()
                with torch.inference_mode():
                    for _ in range(3):
                        sparse.image_head(sparse.hidden_states(text, image)[1][:, :1])
                seconds["no cache"] = (time.process_time() - started) / 3 * stream.num_image_tokens
            print_ratios(
                f"{size}: {candidates} candidates of one caption; image cache {cache_bytes(sparse) / 2**20:.2f} MiB each, "
                f"full {cache_bytes(full) / 2**20:.2f} MiB",
                seconds,
                "full attention, cache",
                lambda s, n=candidates: f"{n / s:9.3f} images/s",
            )


if __name__ == "__main__":
    main()
