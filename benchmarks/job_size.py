"""One batch job of 50,000 prompts: memory beyond the prompt set, and CPU seconds of our own work.

A service with OpenAI's files and batches runs in another process. This process forms the file, uploads it, waits, reads
the results in shuffled order and writes the record. CPU seconds are those of this process, memory is its peak beyond
what it had once the prompts were read.
"""

import argparse
import logging
import multiprocessing
import os
import resource
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from runner import app
from runner.cli.compose import compose_config
from runner.config.waits import Waits
from tests.servers.batch_service import BatchService, shuffled
from tests.servers.openai_server import KEY


def main(*, prompts: int) -> None:
    """Measure and print."""
    logging.disable(logging.INFO)
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    os.environ["OPENAI_API_KEY"] = KEY
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "prompts.txt"
        path.write_text("\n".join(f"prompt {number} asks for a few words of an answer" for number in range(prompts)))
        config = compose_config(
            ["provider=openai", f"provider.base_url={ours.recv()}/v1", "batch.mode=job", "batch.size=auto",
             "tracking=off", "prompts=file", f"prompts.path={path}"]
        )  # fmt: skip
        prompt_set = app.check(config)
        before_mb, cpu_s, start = _peak_mb(), time.process_time(), time.perf_counter()
        result = app.run(config, Path(scratch) / "run", prompts=prompt_set, waits=Waits(max_poll_s=1.0))
    print(
        f"{prompts:,} prompts in one job: {result.metrics['completed_prompts']:,.0f} "
        f"completed; {_peak_mb() - before_mb:,.0f} MiB beyond the prompt set (peak {_peak_mb():,.0f} MiB), "
        f"{time.process_time() - cpu_s:.1f} s of CPU, {time.perf_counter() - start:.1f} s in all"
    )
    server.terminate()


def _serve(connection: Connection) -> None:
    with BatchService(rearrange=shuffled) as service:
        connection.send(service.url)
        time.sleep(3600)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=50_000)
    main(**vars(parser.parse_args()))
