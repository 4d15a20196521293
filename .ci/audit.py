"""Ask PyPI which locked dependencies have known vulnerabilities; requirements on stdin, options go to pip-audit.

Fails (exit code 1) on a vulnerability that `audit-ignore.txt` beside this file does not list. Where advisories cannot
be asked for, says so and passes: what is checked must not depend on the network. Note that pip-audit itself passes
packages that the index did not answer for, as mirrors without PyPI's JSON pages do; here they are counted.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

IGNORED = Path(__file__).with_name("audit-ignore.txt")
LINE = re.compile(r"(\S+) +(\d{4}-\d{2}-\d{2}) +(\S.*)")


def ignored() -> list[str]:
    """Return the ids listed: `ID YYYY-MM-DD reason` a line."""
    lines = [line.strip() for line in IGNORED.read_text().splitlines()]
    entries = [(line, LINE.fullmatch(line)) for line in lines if line and not line.startswith("#")]
    if wrong := [line for line, match in entries if match is None]:
        sys.exit(f"audit: {IGNORED.name}: {wrong[0]!r} is not 'ID YYYY-MM-DD reason'")
    return [match[1] for _, match in entries if match]


def main() -> int:
    """Ask, print what was found, and return the exit code."""
    options = [option for name in ignored() for option in ("--ignore-vuln", name)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(sys.stdin.read())
        requirements.flush()
        command = [sys.executable, "-m", "pip_audit", "--requirement", requirements.name, "--disable-pip", "--no-deps"]
        command += ["--format", "json", "--progress-spinner", "off", "--timeout", "5", *options, *sys.argv[1:]]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            print("audit: the advisory service did not answer in 60 s; NOTHING WAS AUDITED")
            return 0
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        if "Connection" in done.stderr or "ServiceError" in done.stderr or "timed out" in done.stderr.lower():
            print(f"audit: the advisory service cannot be reached; NOTHING WAS AUDITED ({reason[:200]})")
            return 0
        print(f"audit: pip-audit failed: {reason}", file=sys.stderr)
        return 1
    if not packages:
        print("audit: no requirements on stdin; `make audit` exports them from the lock file", file=sys.stderr)
        return 1
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    found = [(package, one) for package in packages for one in package.get("vulns", ())]
    for package, one in found:
        fixed = ", ".join(one["fix_versions"]) or "no version"
        print(f"audit: {package['name']} {package['version']}: {one['id']}, fixed in {fixed}", file=sys.stderr)
    if packages and len(skipped) == len(packages):
        print(f"audit: the index has no advisories for any of {len(packages)} packages; NOTHING WAS AUDITED")
    else:
        print(f"audit: {len(packages) - len(skipped)} packages asked about, {len(found)} vulnerabilities not ignored")
        if skipped:
            print(f"audit: not known to the advisory service: {', '.join(skipped)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
