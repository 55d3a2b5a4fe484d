"""`python -m pipeline forget` in a project that `dvc repro` ran: nothing of the post is left, also after the next run.

    python -m tests.robustness.forgotten

Looks for the post's id, words, digests, media and vectors in every file of the project, of DVC's cache and of ours,
with Parquet decoded, before and after; only git's history is left out. Some minutes.
"""

import hashlib
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from pipeline.core.files import content_digest
from pipeline.core.schemas import MODALITIES
from tests.robustness import small


def secrets(root: Path, sample_id: str) -> dict[str, bytes]:
    """What tells the post: bytes that no other post has, each by its name."""
    posts = pd.read_csv(root / "posts" / "manifest.csv", dtype=str).set_index("id")
    given = posts.loc[sample_id].dropna()
    told = {"id": sample_id.encode()}
    for name in given.index.intersection(MODALITIES):
        value = str(given[name])
        told[name] = value.encode() if name == "text" else (root / "posts" / value).read_bytes()
        told[f"digest of {name}"] = hashlib.sha256(told[name]).hexdigest().encode()
        rows = pq.read_table(root / "data" / "embeddings" / "posts" / f"{name}.parquet").to_pandas()
        (vector,) = rows.loc[rows["sample_id"] == sample_id, "vector"]
        told[f"vector of {name}"] = np.asarray(vector, dtype=np.float32).tobytes()
    return {f"{sample_id}, {name}": secret for name, secret in told.items()}


def alone(root: Path, modality: str) -> str:
    """The first post that has the modality, and shares none of its own, nor its id with a built-in post."""
    posts = pd.read_csv(root / "posts" / "manifest.csv", dtype=str)
    built_in = pd.read_csv(root / "data" / "sample" / "posts" / "manifest.csv", dtype=str)
    contents = posts[list(MODALITIES)].copy()
    for name in ("image", "video"):
        contents[name] = contents[name].map(lambda file: content_digest(root / "posts" / file), na_action="ignore")
    shared = contents.apply(lambda column: column.duplicated(keep=False) & column.notna()).any(axis=1)
    new = ~posts["id"].isin(built_in["id"]) & ~contents["text"].isin(built_in["text"])
    return str(posts.loc[new & ~shared & posts[modality].notna(), "id"].iloc[0])


def held(root: Path, wanted: Mapping[str, bytes]) -> dict[str, list[str]]:
    """Of each secret, the files that hold it, or are called so."""
    found: dict[str, list[str]] = {name: [] for name in wanted}
    words = {
        name: re.compile(rb"(?<![\w.-])" + re.escape(secret) + rb"(?![\w-])")
        for name, secret in wanted.items()
        if name.endswith("id")
    }
    for place in (root, Path(f"{root}-cache")):
        for path in sorted(place.rglob("*")):
            if not path.is_file() or ".git" in path.parts:
                continue
            data = decoded(path)
            for name, secret in wanted.items():
                if words[name].search(data + b" " + path.name.encode()) if name.endswith("id") else secret in data:
                    found[name].append(str(path.relative_to(place.parent)))
    return found


def decoded(path: Path) -> bytes:
    """What a file holds, with the cells of Parquet spelled out and its vectors as they are in memory."""
    data = path.read_bytes()
    if data[:4] != b"PAR1":
        return data
    cells = [cell for row in pq.read_table(path).to_pylist() for cell in row.values()]
    lists = [np.asarray(cell, dtype=np.float32).tobytes() for cell in cells if isinstance(cell, list)]
    return b"\n".join([data, *lists, *(str(cell).encode() for cell in cells if not isinstance(cell, list))])


def forget(root: Path) -> list[str]:
    """Forgets two posts of a project that was run, one with a picture and one with a clip; what is wrong then."""
    ids = [alone(root, name) for name in ("image", "video")]
    wanted = {name: secret for sample_id in ids for name, secret in secrets(root, sample_id).items()}
    before = held(root, wanted)
    wrong = [f"{name}: is nowhere before, so that nothing was shown" for name, files in before.items() if not files]
    small.run(root, sys.executable, "-m", "pipeline", "forget", *ids, "--yes")
    for when in ("after forget", "after the next dvc repro"):
        wrong += [f"{when}: {name} is in {', '.join(files[:5])}" for name, files in held(root, wanted).items() if files]
        if when == "after forget":
            small.run(root, "dvc", "repro")
    if "up to date" not in (status := small.run(root, "dvc", "status")):
        wrong.append(f"dvc status: {status[-300:]}")
    rows = pq.read_table(root / "data" / "split" / "posts.parquet")
    print(f"{', '.join(ids)}: stood in {len(set().union(*before.values()))} files; {len(rows)} posts are left")
    return wrong


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = small.under_dvc(Path(folder) / "project")
        small.run(root, "dvc", "repro")
        wrong = forget(root)
    print("\n".join(wrong) or "nothing of it is left")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
