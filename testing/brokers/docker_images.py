"""Name an image of a server that Docker has, or can pull, or that is made here of Debian's package.

    PYTHONPATH=testing .venv/bin/python -m brokers.docker_images redis

The last is for machines that reach no registry of images: the files of the installed package, of all that it
depends on and of what is essential on Debian are enough to run.
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import IO, NamedTuple

import docker
from docker.errors import DockerException

from . import rabbitmq_server, redis_server

_NO_NEED = ("/usr/share/doc/", "/usr/share/man/", "/usr/share/locale/")
_MERGED = ("/bin", "/lib", "/lib64", "/sbin")
"""Links into /usr that belong to no package."""


class Recipe(NamedTuple):
    """How an image is made."""

    usual: str
    """The one to be had from a registry."""
    package: str
    """The Debian package."""
    changes: list[str]
    """What to run, in the words of a Dockerfile."""


RECIPES = {
    "redis": Recipe(
        redis_server.SHARED.image,
        "redis-server",
        ['CMD ["redis-server", "--protected-mode", "no"]'],  # or it would serve its own container only
    ),
    "rabbitmq": Recipe(
        rabbitmq_server.SHARED.image,
        "rabbitmq-server",
        [
            'ENV HOME=/var/lib/rabbitmq RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-rabbit loopback_users []"',
            'CMD ["/usr/lib/rabbitmq/bin/rabbitmq-server"]',
        ],
    ),
}


def main() -> None:
    """Print the image's name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("server", choices=RECIPES)
    recipe = RECIPES[parser.parse_args().server]
    try:
        print(_find_or_make(docker.from_env(timeout=300), recipe))
    except DockerException as error:
        sys.exit(
            f"Docker doesn't run here: {error}. On Debian, as root: apt-get install docker.io, then dockerd"
        )


def _find_or_make(client: docker.DockerClient, recipe: Recipe) -> str:
    if client.images.list(recipe.usual):
        return recipe.usual
    try:
        client.images.pull(recipe.usual)
    except DockerException as error:
        print(f"{recipe.usual} is not to be had ({error}): making one of {recipe.package}", file=sys.stderr)
    else:
        return recipe.usual
    name = f"mindtrace-jobs-test/{recipe.package}"
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        _pack(recipe.package, archive)
        archive.seek(0)
        client.api.import_image(archive, repository=name, tag="debian", changes=recipe.changes)
    return f"{name}:debian"


def _pack(package: str, archive: IO[bytes]) -> None:
    """Write the files of ``package`` and all it needs into a tar archive."""
    paths = _lines("dpkg-query", "--listfiles", *_needed(package), *_essential())
    wanted = {str(Path(path).parent.resolve() / Path(path).name) for path in paths if path.startswith("/")}
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in sorted(wanted | set(_MERGED)):
            if (
                path != "/"
                and not path.startswith(_NO_NEED)
                and (Path(path).exists() or Path(path).is_symlink())
            ):
                tar.add(path, recursive=False)


def _needed(package: str) -> set[str]:
    no = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    found = _lines(
        "apt-cache", "depends", "--recurse", "--installed", *(f"--no-{relation}" for relation in no), package
    )
    names = {line for line in found if not line.startswith((" ", "<"))}
    if package not in names:
        sys.exit(f"{package} is not installed, so no image can be made of it: apt-get install {package}")
    return names


def _essential() -> set[str]:
    pairs = (
        line.split() for line in _lines("dpkg-query", "--show", "--showformat", "${Package} ${Essential}\n")
    )
    return {name for name, essential in pairs if essential == "yes"}


def _lines(*command: str) -> list[str]:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()


if __name__ == "__main__":
    main()
