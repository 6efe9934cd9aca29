"""Embeds images in batches: one call of the model for many jobs.

Needs NumPy, and uses PyTorch if it is installed, on a GPU if there is one. With ``--plot FILE`` it measures
how many images a second it embeds with each size of a batch, and draws that (needs matplotlib).
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from mindtrace.jobs import BatchConsumer, Dead, Job, JobInput, JobOutcome, JobOutput, JobSchema, Orchestrator

try:
    import torch  # type: ignore[import-not-found,unused-ignore]  # pyright: ignore[reportMissingImports]
except ImportError:
    torch = None

PIXELS = 64
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Image(JobInput):
    path: str


class Embedding(JobOutput):
    vector: list[float]


class Model:
    """A small network with fixed weights: as much work for each image as reading all of them."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        shapes = ((PIXELS * PIXELS, 2048), (2048, 64))
        self._weights = [random.standard_normal(shape, np.float32) / shape[0] ** 0.5 for shape in shapes]
        if torch is not None:
            self._device = "cuda" if torch.cuda.is_available() else "cpu"
            self._weights = [torch.from_numpy(weights).to(self._device) for weights in self._weights]

    def embed(self, images: "np.ndarray") -> "np.ndarray":
        """Return one vector for each image; ``images`` has a row for each."""
        values = images.astype(np.float32) / 255
        if torch is None:
            for weights in self._weights:
                values = np.tanh(values @ weights)
            return values
        with torch.inference_mode():
            values = torch.from_numpy(values).to(self._device)
            for weights in self._weights:
                values = torch.tanh(values @ weights)
            embedded: np.ndarray = values.cpu().numpy()
            return embedded


@cache
def load_model() -> Model:
    """Load the model, once in each process."""
    return Model()


class Embedder(BatchConsumer[Image, Embedding]):
    schema = JobSchema(name="embed", input=Image, output=Embedding)
    batch_size = 32
    batch_wait_s = 0.02

    def __init__(self) -> None:
        super().__init__()
        self._model = load_model()

    def run_batch(self, jobs: Sequence[Job[Image]]) -> list[JobOutcome[Embedding]]:
        outcomes: dict[str, JobOutcome[Embedding]] = {}
        images = {}
        for job in jobs:
            try:
                images[job.id] = np.load(job.payload.path).reshape(-1)
            except (OSError, ValueError) as error:  # this one alone
                outcomes[job.id] = Dead(f"no image: {error}")
        if images:
            vectors = self._model.embed(np.stack(list(images.values())))
            for job_id, vector in zip(images, vectors, strict=True):
                outcomes[job_id] = Embedding(vector=vector.tolist())
        return [outcomes[job.id] for job in jobs]


def make_images(folder: Path, count: int) -> list[Image]:
    random = np.random.default_rng(1)
    for number in range(count):
        np.save(folder / f"{number}.npy", random.integers(0, 256, (PIXELS, PIXELS), np.uint8))
    return [Image(path=str(folder / f"{number}.npy")) for number in range(count)]


def images_per_second(images: Sequence[Image], batch_size: int) -> float:
    """Embed them all, and measure how long that takes."""
    with Orchestrator("memory://") as orchestrator, Embedder() as embedder:
        embedder.connect(orchestrator, batch_size=batch_size)
        orchestrator.publish_batch("embed", images)
        began_s = time.perf_counter()
        embedder.consume(len(images))
        if embedder.stopped:  # by Ctrl-C
            raise SystemExit("stopped")
        return len(images) / (time.perf_counter() - began_s)


def plot(images: Sequence[Image], file: Path, rounds: int = 5) -> None:
    import matplotlib  # type: ignore[import-not-found,unused-ignore]  # pyright: ignore[reportMissingImports]

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt  # type: ignore[import-not-found,unused-ignore]  # pyright: ignore[reportMissingImports]

    runs = [[images_per_second(images, size) for size in SIZES] for _ in range(rounds)]  # round after round
    found = dict(zip(SIZES, map(sorted, zip(*runs, strict=True)), strict=True))
    medians = [found[size][rounds // 2] for size in SIZES]
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(SIZES, medians, marker="o", color="#1f6f8b")
    axes.fill_between(
        SIZES,
        [found[size][0] for size in SIZES],
        [found[size][-1] for size in SIZES],
        color="#1f6f8b",
        alpha=0.2,
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(SIZES, [str(size) for size in SIZES])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("batch_size")
    library = "NumPy" if torch is None else f"PyTorch {torch.__version__}"
    axes.set_title(
        f"Images embedded a second, {library}; the median of {rounds} runs, and all", fontsize=10, loc="left"
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=100)
    for size, median in zip(SIZES, medians, strict=True):
        print(f"batch_size {size:3}: {median:7.0f} images/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="measure, and draw the result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.plot is not None:
            plot(make_images(folder, 256), options.plot)
            return
        images = [*make_images(folder, 70), Image(path=str(folder / "missing.npy"))]
        with Orchestrator("memory://") as orchestrator, Embedder() as embedder:
            embedder.connect(orchestrator)
            ids = [handle.id for handle in orchestrator.publish_batch("embed", images)]
            embedder.consume(len(images))
            embedding = orchestrator.result(Embedder.schema, ids[0]) or Embedding(vector=[])
            print(f"Embedded {embedder.stats.done} images, each as {len(embedding.vector)} numbers")
            for letter in orchestrator.dead_letters("embed"):
                print(f"Dead: {letter.error}")


if __name__ == "__main__":
    main()
