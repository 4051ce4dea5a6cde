"""Generates the Python code of every .proto into the package that owns it: `python proto/generate.py [--check]`.

protoc names modules after the .proto's path; ours live inside our packages, so the one import between generated
modules is rewritten. `--check` generates aside and fails when what is committed differs.
"""

from __future__ import annotations

import argparse
import filecmp
import re
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

PROTO_DIR = Path(__file__).parent
ROOT = PROTO_DIR.parent
#: .proto directory -> the directory of the package that owns its generated code
OWNERS = {"net": "chain/pb", "livepeer/clearinghouse/v1": "clearinghouse/api/pb"}

PLUGINS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc")


def generate(target: Path) -> list[Path]:
    """Writes all generated modules below `target`; returns their paths relative to it."""
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    written: list[Path] = []
    for source, owner in OWNERS.items():
        with tempfile.TemporaryDirectory() as scratch:
            protos = sorted(str(path) for path in (PROTO_DIR / source).glob("*.proto"))
            flags = [f"--{kind}_out={scratch}" for kind in ("python", "grpc_python")]
            flags += [f"--{kind}_out=quiet:{scratch}" for kind in ("mypy", "mypy_grpc")]
            # Beside this interpreter, and not by PATH: the environment may be used without being activated.
            flags += [f"--plugin={name}={Path(sys.executable).with_name(name)}" for name in PLUGINS]
            if status := protoc.main(["protoc", f"-I{PROTO_DIR}", f"-I{well_known}", *flags, *protos]):
                raise SystemExit(f"protoc failed with status {status} on {source}")
            for path in sorted(Path(scratch, source).iterdir()):
                destination = Path(owner, path.name)
                (target / destination).parent.mkdir(parents=True, exist_ok=True)
                (target / destination).write_text(rehome(path.read_text(), source, owner))
                written.append(destination)
    return written


def rehome(code: str, source: str, owner: str) -> str:
    """Points imports between generated modules at the package that owns them."""
    old, new = source.replace("/", "."), owner.replace("/", ".")
    code = re.sub(rf"^from {re.escape(old)} import", f"from {new} import", code, flags=re.MULTILINE)
    return re.sub(rf"(?<![\w.]){re.escape(old)}\.(\w+_pb2)", rf"{new}.\1", code)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true", help="compare with the committed code instead of writing it")
    if not arguments.parse_args().check:
        print(*generate(ROOT), sep="\n")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        stale = [
            str(path)
            for path in generate(Path(scratch))
            if not (ROOT / path).exists() or not filecmp.cmp(ROOT / path, Path(scratch, path), shallow=False)
        ]
    if stale:
        print("generated code is stale; run `make proto`:", *stale, sep="\n  ", file=sys.stderr)
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
