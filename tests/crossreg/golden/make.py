"""Write the golden numbers anew: `python -m tests.crossreg.golden.make`.

One may do so where numbers are meant to change: a change of the method, of an initial value or of a random stream that
the changelog names, or a training that is set up differently here. Likewise for another PyTorch or machine to compare
exactly on, after the test has passed there within its tolerance. A test that fails for no known reason is a mistake in
the code, and no occasion.
"""

from __future__ import annotations

import json

from tests.crossreg.golden.training import FILE, machine, run

if __name__ == "__main__":
    FILE.write_text(json.dumps({"made_on": machine(), "numbers": run()}, indent=1) + "\n")
    print(f"wrote {FILE}")
