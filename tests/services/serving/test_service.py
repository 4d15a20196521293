"""The service over HTTP: what it answers, what it refuses, and that nobody notices a lost replica or a new version."""

from __future__ import annotations

import io
import json
import math
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from crossreg.prediction.export import Exported, load_exported
from tests.services.serving.conftest import ROOT, Service, Store
from tests.waiting import wait_for

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def probabilities(answer: dict[str, Any]) -> np.ndarray:
    return np.array([prediction["probabilities"] for prediction in answer["predictions"]])


def test_answers_are_the_librarys_one_example_at_a_time(
    service: Service, exported: Exported, images: np.ndarray
) -> None:
    answer = service.predict(images[:70])
    alone = np.concatenate([exported(images[i : i + 1], samples=16, seed=0) for i in range(70)])
    np.testing.assert_allclose(probabilities(answer), alone, atol=2e-6)
    assert answer["classes"] == [str(digit) for digit in range(10)]
    assert answer["samples"] == 16
    _, spread = exported.predict(images[:70], samples=16, seed=0)
    for row, (p, s) in enumerate(zip(alone, spread, strict=True)):
        prediction = answer["predictions"][row]
        assert prediction["label"] == str(p.argmax())
        assert prediction["entropy"] == pytest.approx(-(p[p > 0] * np.log(p[p > 0])).sum(), abs=1e-4)
        np.testing.assert_allclose(prediction["spread"], s, atol=2e-6)
    assert max(prediction["entropy"] for prediction in answer["predictions"]) < math.log(10)
    assert max(max(prediction["spread"]) for prediction in answer["predictions"]) > 0.01


def test_an_image_file_is_answered_as_its_pixels(service: Service, images: np.ndarray) -> None:
    expected = probabilities(service.predict(images[:1]))
    file = io.BytesIO()
    Image.fromarray(images[0, 0]).save(file, "png")
    for image in (file.getvalue(), _larger(file)):
        path = "/predict" if image is file.getvalue() or image == file.getvalue() else "/predict?resize=true"
        response = service.http.post(path, content=image, headers={"content-type": "image/png"})
        assert response.status_code == 200, response.text
        # the larger one has every pixel doubled, so that resizing gives nearly the same image back
        np.testing.assert_allclose(probabilities(response.json()), expected, atol=1e-6 if path == "/predict" else 0.3)


def _larger(file: io.BytesIO) -> bytes:
    out = io.BytesIO()
    Image.open(file).resize((16, 16), Image.Resampling.NEAREST).convert("RGB").save(out, "png")
    return out.getvalue()


def test_requests_at_the_same_time_get_the_answers_they_get_alone(service: Service, images: np.ndarray) -> None:
    alone = probabilities(service.predict(images[:40]))
    load = Load(service, images, clients=12)
    with load:
        time.sleep(3)
    assert load.failures == Counter()
    assert load.answered > 20
    for row, version, seen in load.seen:
        assert version == "1"
        np.testing.assert_allclose(seen, alone[row], atol=2e-6)


ONE = [[[[0] * 8] * 8]]
JSON = {"content-type": "application/json"}
PNG = {"content-type": "image/png"}


def _png(width: int, height: int, mode: str = "L") -> bytes:
    out = io.BytesIO()
    Image.new(mode, (width, height)).save(out, "png")
    return out.getvalue()


REFUSED: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "no content type": (b"{}", {}, 415, "expected application/json, image/png, image/jpeg"),
    "another content type": (b"x", {"content-type": "text/plain"}, 415, "'text/plain'"),
    "compressed": (b"x", {**JSON, "content-encoding": "gzip"}, 415, "compressed"),
    "no JSON": (b"{inputs}", JSON, 400, "the body is not JSON"),
    "no text": (b"\xff\xfe\x00", JSON, 400, "the body is not JSON"),
    "deep": (b"[" * 100_000, JSON, 400, "the body is not JSON"),
    "NaN": (b'{"inputs": [[[[NaN]]]]}', JSON, 400, "NaN is no JSON number"),
    "infinite": (b'{"inputs": [1e999]}', JSON, 422, "shape [1]"),
    "a list": (b"[1]", JSON, 422, 'is a JSON list; expected an object {"inputs": [...]}'),
    "unknown field": (json.dumps({"input": ONE}).encode(), JSON, 422, "did you mean 'inputs'"),
    "nothing": (b"{}", JSON, 422, "field 'inputs' is missing"),
    "a word": (b'{"inputs": "seven"}', JSON, 422, "field 'inputs' is string"),
    "words": (b'{"inputs": [["seven"]]}', JSON, 422, "no numbers"),
    "null": (b'{"inputs": [null]}', JSON, 422, "no numbers"),
    "ragged": (b'{"inputs": [[1, 2], [3]]}', JSON, 422, "not of equal lengths"),
    "empty": (b'{"inputs": []}', JSON, 422, "'inputs' holds 0 examples; allowed are 1 to 100"),
    "one example without a list": (json.dumps({"inputs": ONE[0]}).encode(), JSON, 422, "into a list of one"),
    "another shape": (b'{"inputs": [[1, 2]]}', JSON, 422, "has shape [1, 2]; expected [N, 1, 8, 8]"),
    "too many": (json.dumps({"inputs": ONE * 101}).encode(), JSON, 422, "holds 101 examples; allowed are 1 to 100"),
    "no pixels": (json.dumps({"inputs": [[[[-1] + [0] * 7] * 8]]}).encode(), JSON, 422, "pixels run from -1 to 0"),
    "a huge number": (json.dumps({"inputs": [[[[10**400] + [0] * 7] * 8]]}).encode(), JSON, 422, "numbers"),
    "beyond float32": (json.dumps({"inputs": [[[[1e300] + [0] * 7] * 8]]}).encode(), JSON, 422, "beyond float32"),
    "too large": (b" " * 1_000_001, JSON, 413, "larger than 1,000,000 bytes"),
    "another size": (_png(9, 8), PNG, 422, "9x8 pixels; expected 8x8, or ask with ?resize=true"),
    "a bomb": (_png(20_000, 20_000, "1"), PNG, 422, "too many pixels; allowed are 16,777,216"),
    "16 bits": (_png(8, 8, "I;16"), PNG, 422, "more than 8 bits"),
    "pixels beyond the bound": (_png(5000, 5000, "1"), PNG, 422, "too many pixels; allowed are 16,777,216"),
    "half an image": (_png(8, 8)[:45], PNG, 422, "cannot be read as a PNG image"),
    "no image": (b"not one", PNG, 422, "cannot be read as a PNG image"),
    "a PNG called JPEG": (_png(8, 8), {"content-type": "image/jpeg"}, 422, "cannot be read as a JPEG image"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_request_is_told_what_is_expected(case: str, service: Service) -> None:
    body, headers, status, message = REFUSED[case]
    response = service.http.post("/predict", content=body, headers=headers)
    assert response.status_code == status, response.text
    assert message in response.json()["detail"]
    assert len(response.json()["detail"]) < 500


def test_a_body_of_no_declared_length_is_bounded_while_it_is_read(service: Service) -> None:
    def forever() -> Any:
        for _ in range(300):
            yield b" " * 1_000_000

    # more than is read: either the answer comes through, or the connection ends under the writer
    try:
        response = service.http.post("/predict", content=forever(), headers=JSON)
    except httpx.TransportError:
        pass
    else:
        assert response.status_code == 413
    assert service.ready()["status"] == "ready"


def test_pages(service: Service) -> None:
    assert service.http.get("/healthz").json() == {"status": "alive"}
    ready = service.ready()
    assert ready["input_shape"] == [1, 8, 8]
    assert ready["images"] is True
    assert ready["trouble"] is None
    assert service.http.get("/docs").status_code == 200
    page = service.http.get("/openapi.json").json()
    assert set(page["paths"]) == {"/predict", "/healthz", "/readyz"}
    question = page["paths"]["/predict"]["post"]
    assert set(question["requestBody"]["content"]) == {"application/json", "image/png", "image/jpeg"}
    assert {"200", "413", "415", "422", "503"} <= set(question["responses"])


class Load:
    """Clients that ask without pause; everything that is not an answer is counted."""

    def __init__(self, service: Service, images: np.ndarray, clients: int = 8) -> None:
        self.failures: Counter[str] = Counter()
        self.versions: Counter[str] = Counter()
        self.seen: list[tuple[int, str, list[float]]] = []
        self._url, self._images, self._over = service.url, images, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(index,), daemon=True) for index in range(clients)]

    @property
    def answered(self) -> int:
        return sum(self.versions.values())

    def wait(self, answers: int) -> None:
        """Wait for so many more answers."""
        goal = self.answered + answers
        wait_for(lambda: self.answered >= goal, f"{answers} more answers", said=lambda: str(self.failures))

    def _ask(self, index: int) -> None:
        draws = np.random.default_rng(index)
        with httpx.Client(base_url=self._url, trust_env=False, timeout=100) as http:
            while not self._over.is_set():
                count = int(draws.integers(1, 5))
                rows = draws.integers(0, 40, count)
                try:
                    response = http.post("/predict", json={"inputs": self._images[rows].tolist()})
                except httpx.HTTPError as error:
                    self.failures[repr(error)] += 1
                    continue
                if response.status_code != 200:
                    self.failures[response.text] += 1
                    continue
                answer = response.json()
                self.versions[answer["version"]] += 1
                self.seen += [
                    (int(row), answer["version"], prediction["probabilities"])
                    for row, prediction in zip(rows, answer["predictions"], strict=True)
                ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        deadline = time.monotonic() + 110  # a request is given up after 100 s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        assert not any(thread.is_alive() for thread in self._threads), "a client still waits for its answer"


def test_a_killed_replica_costs_no_request(service: Service, images: np.ndarray) -> None:
    with Load(service, images) as load:
        # whether requests are with the replica that dies is up to the router, so more than one may have to
        for _ in range(10):
            load.wait(40)
            victim = service.replicas()[0]
            # stopped first, so that requests gather at it
            victim.send_signal(signal.SIGSTOP)
            time.sleep(1)
            victim.send_signal(signal.SIGKILL)
            load.wait(40)
            service.wait_for_replicas(2, without=victim)
            if service.ready()["retried"]:
                break
    assert load.failures == Counter()
    assert service.ready()["retried"] > 0


def test_a_new_version_is_taken_up_under_load_and_a_broken_one_is_not(
    service: Service, models: Store, digits: tuple[str, Path], images: np.ndarray
) -> None:
    run_id, folder = models.train("digits", seed=1)

    def break_weights(stored: Path) -> None:
        (stored / "artifacts" / "weights.safetensors").write_bytes(b"no weights")

    broken = models.log(folder, break_weights)
    with Load(service, images) as load:
        load.wait(20)
        models.promote(run_id)
        service.wait(version="2", trouble=None)
        load.wait(20)
        models.promote(broken)
        wait_for(lambda: service.ready()["trouble"], "word that version 3 is broken", every=0.1, said=service.stderr)
        trouble = service.ready()
        models.promote(digits[0])  # back
        service.wait(version="1", trouble=None)
        load.wait(20)
    assert load.failures == Counter()
    assert set(load.versions) == {"1", "2"}
    assert trouble["version"] == "2"
    assert "version 3" in trouble["trouble"]
    assert "is not served: its folder holds no exported model" in trouble["trouble"]
    assert "now answers" in service.stderr.read_text()
    assert "is not served" in service.stderr.read_text()
    # each answer is that of the version it names
    alone = {"1": probabilities(service.predict(images[:40]))}
    alone["2"] = load_exported(folder).predict(images[:40], samples=16, seed=0)[0]
    for row, version, seen in load.seen:
        np.testing.assert_allclose(seen, alone[version][row], atol=2e-6)


def test_a_table_is_asked_with_named_fields(service: Service, models: Store, digits: tuple[str, Path]) -> None:
    """The alias moves to a model of another kind; rows are asked as they stand in a file."""
    run_id, folder = models.train(str(ROOT / "examples" / "people.csv"), target="renewed")
    exported = load_exported(folder)
    rows = pd.read_csv(ROOT / "examples" / "new_people.csv")
    models.promote(run_id)
    wait_for(lambda: service.ready()["columns"] is not None, "the model of the table", every=0.1, said=service.stderr)
    ready = service.ready()
    try:
        asked = json.loads(rows.drop(columns="renewed").to_json(orient="records"))
        response = service.http.post("/predict", json={"rows": asked})
        assert response.status_code == 200, response.text
        found = response.json()
        mean, spread = exported.predict(exported.encode(rows), samples=16, seed=0)
        np.testing.assert_allclose(probabilities(found), mean, atol=1e-5)
        assert [one["label"] for one in found["predictions"]] == exported.answers(mean, spread)["label"]
        assert found["warnings"] == []
        assert [one["name"] for one in ready["columns"]] == ["age", "city", "smoker", "joined", "income"]

        person = {"age": None, "city": "Atlantis", "smoker": True, "joined": "2022-05-01", "income": "41,000.00"}
        (warning,) = service.http.post("/predict", json={"rows": [person]}).json()["warnings"]
        assert "'city' is 'Atlantis' in row 1, which training never saw" in warning
        fewer = {name: value for name, value in person.items() if name != "smoker"}
        for row, message in (
            (fewer, "row 1 has no 'smoker'; expected age, city"),
            (fewer | {"smokes": True}, "row 1 has no 'smoker', but 'smokes'; expected age, city"),
            (person | {"agee": 3}, "unknown column 'agee'; did you mean 'age'?; expected age, city"),
            (person | {"age": "old"}, "column 'age' holds 'old' in row 1; expected a finite number"),
            (person | {"age": [1]}, "row 1: 'age' is a JSON list; expected a value"),
        ):
            refused = service.http.post("/predict", json={"rows": [row]})
            assert refused.status_code == 422
            assert message in refused.json()["detail"]

        post = service.http.get("/openapi.json").json()["paths"]["/predict"]["post"]
        body = post["requestBody"]["content"]["application/json"]
        assert list(body["schema"]["properties"]["rows"]["items"]["properties"]) == [*person]
        assert service.http.post("/predict", json=body["example"]).status_code == 200
    finally:
        models.promote(digits[0])
        service.wait(version="1", trouble=None)
