"""``make faults``: run the fault matrix and print what was found; see docs/faults.md."""

import sys

from faults.runner import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
