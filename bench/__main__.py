"""`python -m bench [NAME [ARGUMENT...]]`: run one benchmark, or all of them without a name."""

import sys
from importlib import import_module
from pkgutil import iter_modules

import bench


def names() -> list[str]:
    """Return the benchmarks there are: the modules of this package that have a ``main(arguments)``."""
    found = (module.name for module in iter_modules(bench.__path__) if not module.name.startswith("_"))
    return sorted(name for name in found if hasattr(import_module(f"bench.{name}"), "main"))


def main(arguments: list[str]) -> int:
    """Run what ``arguments`` name; return the exit status."""
    if not arguments:
        for name in names():
            print(f"== {name}", flush=True)
            import_module(f"bench.{name}").main([])
        return 0
    name, *rest = arguments
    if name not in names():
        print(f"there is no benchmark {name!r}; there are {', '.join(names())}", file=sys.stderr)
        return 2
    import_module(f"bench.{name}").main(rest)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
