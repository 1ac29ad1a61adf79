"""Libraries of the tests that are put between a program and the C library: compiled here, when first needed."""

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from faults.scenario import CannotRunError


def preload(name: str) -> Path:
    """Return the library that is compiled from ``[name].c`` beside this file; every user may load it.

    Raises:
        CannotRunError: there is no compiler.
    """
    source = Path(__file__).with_name(f"{name}.c")
    compiler = shutil.which("gcc")
    if compiler is None:
        raise CannotRunError("gcc is not installed (scripts/setup.sh faults)")
    version = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    library = Path(tempfile.gettempdir()) / f"meterway-{name}-{version}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder) / library.name
            words = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(draft), str(source)]
            built = subprocess.run([*words, "-ldl", "-lpthread"], capture_output=True, text=True, check=False)
            if built.returncode:
                raise CannotRunError(f"{source.name} cannot be compiled: {built.stderr.strip()[-500:]}")
            draft.chmod(0o755)
            shutil.move(draft, library)
    return library
