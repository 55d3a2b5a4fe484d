"""Pages of other sites, and names that others gave this machine, get nothing done."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from pipeline.serving.app import build
from pipeline.serving.intake import RequestLimits
from pipeline.serving.predictor import Predictor

FORM = {"text": (None, "so happy")}


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> Iterator[TestClient]:
    app = build(predictor, None, RequestLimits(), allowed=["emo.example"])
    with TestClient(app, "http://localhost:8000") as client:
        yield client


@pytest.mark.parametrize(
    "host",
    [
        "localhost:8000",
        "LOCALHOST",
        "localhost.",
        "127.0.0.1:1",
        "127.0.0.2",
        "[::1]:8000",
        "emo.example",
        "Emo.Example:80",
    ],
)
def test_names_of_this_server_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evil-localhost",
        "localhost@evil.example",
        "192.168.0.7",
        "0.0.0.0",
        "[::ffff:10.0.0.1]",
        "127.0.0.1.nip.io",
        "x.emo.example",
        "[",
        "localhost:port",
        "",
        "a b",
    ],
)
@pytest.mark.parametrize("path", ["/", "/health", "/api/predict"])
def test_other_names_are_refused_in_one_line(client: TestClient, host: str, path: str) -> None:
    answer = client.request("POST" if path.startswith("/api") else "GET", path, headers={"host": host}, files=FORM)
    assert answer.status_code == 403
    assert "--allow-host" in answer.json()["error"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("origin", ["http://localhost:8000", "https://emo.example", "http://EMO.example:3000"])
def test_its_own_pages_may_ask(client: TestClient, origin: str) -> None:
    assert client.post("/api/predict", files=FORM, headers={"origin": origin}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://localhost:3000"},
        {"origin": "http://localhost"},
        {"origin": "http://localhost:8000.evil.example"},
        {"origin": "http://evil.example#http://localhost:8000"},
        {"origin": "file://"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_pages_of_other_sites_may_not(client: TestClient, headers: dict[str, str]) -> None:
    for path in ("/api/predict", "/api/score", "/nothing"):
        answer = client.post(path, files=FORM, headers=headers)
        assert (answer.status_code, "may not ask" in answer.json()["error"]) == (403, True)


def test_programs_name_no_origin_and_may_ask(client: TestClient) -> None:
    assert client.post("/api/predict", json={"text": "so sad"}).status_code == 200
    assert client.post("/api/predict", json={"text": "so sad"}, headers={"sec-fetch-site": "none"}).status_code == 200


def test_one_that_listens_everywhere_is_all_addresses_and_no_further_name(predictor: Predictor) -> None:
    with TestClient(build(predictor, None, RequestLimits(), listening="0.0.0.0"), "http://localhost") as client:
        for host, status in (("192.168.0.7:80", 200), ("[2001:db8::1]", 200), ("evil.example", 403)):
            assert client.get("/health", headers={"host": host}).status_code == status
