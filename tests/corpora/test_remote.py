"""Against a server of this machine: HTTP always; S3 where moto and s3fs are installed, as they are not by an extra."""

import errno
import json
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.core.errors import InputError
from pipeline.corpora import remote
from pipeline.corpora.remote import FetchLimits, fetch
from tests.imports import ROOT

pytest.importorskip("aiohttp")
pytest.importorskip("fsspec")

MB = 10**6
LIMITS = FetchLimits(file_bytes=MB, total_bytes=10 * MB, pause_s=0.0)
ROWS = "id,label,text,image\n1,Joy,a,pictures/a.jpg\n2,Joy,b,pictures/b.jpg\n3,Joy,c,../c.jpg\n4,Joy,d,lacks.jpg\n"


class Server:
    """A folder over HTTP that fails at ``faults`` (path → how many times, with ``status``), at the question for a
    file's size too where ``head`` is set, and counts what is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.faults, self.requests = folder, Counter[str](), Counter[str]()
        self.status, self.head = 503, False
        server = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests[self.path] += 1
                if not self.fails():
                    super().do_GET()

            def do_HEAD(self) -> None:
                if not (server.head and self.fails()):
                    super().do_HEAD()

            def fails(self) -> bool:
                if server.faults[self.path] <= 0:
                    return False
                server.faults[self.path] -= 1
                self.send_error(server.status)
                return True

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "served"
    (folder / "pictures").mkdir(parents=True)
    (folder / "posts.csv").write_text(ROWS)
    (folder / "pictures" / "a.jpg").write_bytes(b"a" * 1000)
    (folder / "pictures" / "b.jpg").write_bytes(b"b" * 2000)
    made = Server(folder)
    thread = threading.Thread(target=made.http.serve_forever, daemon=True)
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()


def files(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


WHOLE = {"pictures/a.jpg": 1000, "pictures/b.jpg": 2000, "posts.csv": len(ROWS)}


def test_a_table_comes_with_its_media_and_nothing_from_outside(server: Server, tmp_path: Path) -> None:
    (server.folder.parent / "c.jpg").write_bytes(b"secret")
    done = fetch(f"{server.address}/posts.csv", tmp_path / "here", LIMITS)
    assert files(tmp_path / "here") == WHOLE
    assert dict(done.lacking) == {"not found": 1, "path leads out of posts.media": 1}
    assert (len(done.sizes), done.kept) == (3, 0)
    assert not list((tmp_path / "here").rglob("*.tmp")) and not list((tmp_path / "here").rglob("*.lock"))


def test_spellings_of_one_path_are_one_file(server: Server, tmp_path: Path) -> None:
    rows = "".join(f"{at},Joy,pictures/{'./' * at}a.jpg\n" for at in range(12))
    (server.folder / "posts.csv").write_text(f"id,label,image\n{rows}99,Joy,x/../pictures/a.jpg\n")
    done = fetch(f"{server.address}/posts.csv", tmp_path / "here", LIMITS)
    assert not done.lacking and len(done.sizes) == 2
    assert files(tmp_path / "here").keys() == {"pictures/a.jpg", "posts.csv"}


def test_what_is_there_is_not_fetched_again_unless_it_changed(server: Server, tmp_path: Path) -> None:
    fetch(f"{server.address}/posts.csv", tmp_path / "here", LIMITS)
    other = server.folder / "pictures" / "b.jpg"
    other.write_bytes(b"c" * 2000)
    os.utime(other, (1, 1))
    done = fetch(f"{server.address}/posts.csv", tmp_path / "here", LIMITS)
    assert (done.sizes, done.kept) == ([2000], 2)
    assert (tmp_path / "here" / "pictures" / "b.jpg").read_bytes() == b"c" * 2000


def test_a_fault_that_passes_is_tried_again(server: Server, tmp_path: Path) -> None:
    server.faults["/pictures/a.jpg"] = 2
    fetch(f"{server.address}/posts.csv", tmp_path / "here", LIMITS)
    assert files(tmp_path / "here") == WHOLE


def test_a_fault_that_stays_is_one_line_and_the_next_run_goes_on(server: Server, tmp_path: Path) -> None:
    server.faults["/pictures/b.jpg"] = 100
    with pytest.raises(InputError, match=r"pictures/b\.jpg: cannot be had after 4 attempts: .*503"):
        fetch(f"{server.address}/posts.csv", tmp_path / "here", LIMITS)
    assert "pictures/b.jpg" not in files(tmp_path / "here")
    server.faults.clear()
    assert fetch(f"{server.address}/posts.csv", tmp_path / "here", LIMITS).kept >= 1
    assert files(tmp_path / "here") == WHOLE


def test_a_server_that_says_nothing_of_a_file_has_not_lost_it(server: Server, tmp_path: Path) -> None:
    server.head = True
    server.faults["/pictures/a.jpg"] = 4  # HEAD and GET, twice
    assert dict(fetch(f"{server.address}/posts.csv", tmp_path / "here", LIMITS).lacking)["not found"] == 1
    assert files(tmp_path / "here") == WHOLE
    server.faults["/posts.csv"] = 100
    with pytest.raises(InputError, match=r"posts\.csv: cannot be had after 4 attempts: .*503"):
        fetch(f"{server.address}/posts.csv", tmp_path / "there", LIMITS)


def test_a_file_that_is_forbidden_is_counted_and_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    server.head, server.status, server.faults["/pictures/a.jpg"] = True, 403, 100
    done = fetch(f"{server.address}/posts.csv", tmp_path / "here", LIMITS)
    assert done.lacking["refused with status 403"] == 1 and server.requests["/pictures/a.jpg"] == 1
    assert files(tmp_path / "here").keys() == {"pictures/b.jpg", "posts.csv"}


def test_nobody_who_answers_is_no_file_that_lacks(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError, match=r"posts\.csv: cannot be had after 4 attempts: .*[Cc]onnect"):
        fetch(f"http://127.0.0.1:{port}/posts.csv", tmp_path / "here", LIMITS)


def test_a_full_disk_is_said_at_once(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def full(most: int) -> None:
        tries.append(most)
        raise OSError(errno.ENOSPC, "No space left on device", "hidden")

    monkeypatch.setattr(remote, "_bounded", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*here/posts\.csv'"):
        fetch(f"{server.address}/posts.csv", tmp_path / "here", LIMITS)
    assert len(tries) == 1


def test_what_is_too_large_is_left_out_and_a_total_ends_it(server: Server, tmp_path: Path) -> None:
    done = fetch(f"{server.address}/posts.csv", tmp_path / "here", FetchLimits(1500, MB, pause_s=0.0))
    assert done.lacking["too large"] == 1 and "pictures/b.jpg" not in files(tmp_path / "here")
    with pytest.raises(InputError, match="GB were fetched; raise --max-total-gb"):
        fetch(f"{server.address}/posts.csv", tmp_path / "other", FetchLimits(MB, 1500, pause_s=0.0))


def test_a_table_cannot_write_over_what_was_there(server: Server, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "params.yaml").write_text("mine")
    with pytest.raises(InputError, match="here: holds files that were not fetched"):
        fetch(f"{server.address}/posts.csv", tmp_path / "here", LIMITS)
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["params.yaml"]
    (server.folder / ".fetched.json").write_text("{}")
    (server.folder / "posts.csv").write_text("id,label,image\n1,Joy,.fetched.json\n")
    done = fetch(f"{server.address}/posts.csv", tmp_path / "other", LIMITS)
    assert dict(done.lacking) == {"a name that is ours": 1}
    assert fetch(f"{server.address}/posts.csv", tmp_path / "other", LIMITS).kept == 1


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("ftp://host/posts.csv", "begins with none of s3://"),
        ("posts.csv", "begins with none of s3://"),
        ("{}/lacks.csv", "lacks.csv: not found"),
        ("{}/posts.xlsx", "posts.xlsx: not found"),
    ],
)
def test_what_cannot_be_is_one_line(server: Server, tmp_path: Path, address: str, says: str) -> None:
    result = CliRunner().invoke(app, ["fetch", address.format(server.address), str(tmp_path / "here")])
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1 and says in result.stderr


def test_the_command_says_what_came(server: Server, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["fetch", f"{server.address}/posts.csv", str(tmp_path / "here")])
    assert result.exit_code == 0
    assert result.stdout.startswith(
        f"{tmp_path / 'here'}: 3 files fetched (0.0 MB), 0 were there; lacking: 1 not found, "
    )
    assert files(tmp_path / "here") == WHOLE


def test_a_package_that_is_absent_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InputError, match=r"gs://b/x\.csv: needs the package gcsfs; pip install .*\[remote\]"):
        fetch("gs://b/x.csv", tmp_path / "here", LIMITS)


S3 = """
import json, sys, boto3
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
store = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
store.create_bucket(Bucket="posts")
for name, text in json.loads(sys.argv[1]).items():
    store.put_object(Bucket="posts", Key=name, Body=text.encode())
print(port, flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("s3fs", "moto", "flask", "boto3"):
        pytest.importorskip(name, reason=f"{name} is not installed; pip install s3fs 'moto[server]'")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    objects = json.dumps({"in/posts.csv": ROWS, "in/pictures/a.jpg": "a" * 1000, "in/pictures/b.jpg": "b" * 2000})
    command = [sys.executable, "-c", S3, objects]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{int(process.stdout.readline())}")
        yield "s3://posts/in/posts.csv"
        process.stdin.close()


def test_from_an_s3_store_with_the_usual_credentials(bucket: str, tmp_path: Path) -> None:
    fetch(bucket, tmp_path / "here", LIMITS)
    assert files(tmp_path / "here") == WHOLE
    done = fetch(bucket, tmp_path / "here", LIMITS)
    assert (done.sizes, done.kept) == ([], 3)
    with pytest.raises(InputError, match=r"lacks\.csv: not found"):
        fetch("s3://posts/in/lacks.csv", tmp_path / "other", LIMITS)
