"""Programs that tests need and that are missing, installed as packages of Debian where that may be done."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence

_HINT = re.compile(r"apt-get install ([a-z0-9][a-z0-9+.-]+)")


def packages_for(missing: Sequence[str]) -> list[str]:
    """Return the packages that messages about missing programs name."""
    return sorted({package for message in missing for package in _HINT.findall(message)})


def may_install() -> bool:
    """Whether this process may install packages, and so it does: on Debian and its kin, as root."""
    return hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(packages: Sequence[str]) -> None:
    """Install packages; what fails is told by apt-get, and by the search for the programs afterwards."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
        done = subprocess.run(
            ["apt-get", *words], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:  # else it tells only of what doesn't matter
            print(done.stderr, file=sys.stderr, flush=True)
