"""A real HTTP server in a thread answers as `vllm serve` does."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from manypaths.generation import vllm_server
from manypaths.generation.samples import Request, Sample, Sampling, request_seed, requests_for
from manypaths.generation.vllm_backend import vllm_backend
from manypaths.generation.vllm_server import server_backend


class Service(ThreadingHTTPServer):
    """What a test may change: the logprobs mode, failures to come, and the answers to other paths."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.bodies, self.headers, self.failures = [], [], []
        self.processed, self.token_ids, self.key = True, True, None
        self.running = self.most_running = 0
        self.guard = threading.Lock()
        self.pages = {
            "/v1/models": {"data": [{"id": "tuned", "root": "/models/tuned", "max_model_len": 64}]},
            "/version": {"version": "0.31.0"},
        }


class Handler(BaseHTTPRequestHandler):
    def answer(self, code, content):
        data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refused(self):
        return self.server.key is not None and self.headers["Authorization"] != f"Bearer {self.server.key}"

    def do_GET(self):
        page = self.server.pages.get(self.path)
        if self.refused():
            self.answer(401, {"error": "Unauthorized"})
        else:
            self.answer(200 if page else 404, page or {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        service = self.server
        with service.guard:
            service.bodies.append(body)
            failure = service.failures.pop(0) if service.failures else None
            service.running += 1
            service.most_running = max(service.most_running, service.running)
        time.sleep(0.002)
        with service.guard:
            service.running -= 1
        if failure == "hang up":
            self.close_connection = True
            return
        if failure is not None:
            self.answer(failure, {"error": {"message": f"failure {failure}"}})
            return
        ids = [20, body["seed"] % 7 + 21, 1]
        certain = service.processed and body["top_k"] == 1
        logprobs = {"tokens": ["a"] * 3, "token_logprobs": [0.0 if certain else -0.5] * 3, "top_logprobs": [{}] * 3}
        choice = {"index": 0, "text": "", "finish_reason": "stop", "stop_reason": None}
        choice["logprobs"] = None if body["logprobs"] is None else logprobs
        choice["token_ids"] = ids if service.token_ids else None
        self.answer(200, {"choices": [choice]})

    def log_message(self, *arguments):
        pass


@pytest.fixture
def service():
    server = Service()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def waits(monkeypatch):
    slept = []
    monkeypatch.setattr(vllm_server.time, "sleep", slept.append)
    return slept


def test_every_sample_is_one_request_with_its_own_seed(service, tokenizer):
    wanted = requests_for([[5, 6], [9]], Sampling(num_samples=20, temperature=0.6, top_p=0.9, max_new_tokens=6))
    backend = vllm_backend("tuned", tokenizer, server_base_url=service.url + "/")
    assert backend.name == "vllm server 0.31.0" and service.bodies == []
    drawn = dict(backend.draw(wanted, {3, 4}))
    assert sorted(drawn) == [position for position in range(40) if position not in (3, 4)]
    for position, one in drawn.items():
        ids = [20, request_seed(wanted[position]) % 7 + 21, 1]
        assert one == Sample(tokenizer.decode(ids[:2]), ids, "eos", 3, -1.5)
    first, *bodies = service.bodies
    assert (first["prompt"], first["top_k"], first["max_tokens"]) == ([5], 1, 8)  # asks what the logprobs mean
    assert len(bodies) == 38 and {body["seed"] for body in bodies} == {request_seed(wanted[p]) for p in drawn}
    assert {key: bodies[0][key] for key in ("model", "temperature", "top_p", "repetition_penalty", "min_p")} == {
        "model": "tuned",
        "temperature": 0.6,
        "top_p": 0.9,
        "repetition_penalty": 1.0,
        "min_p": 0.0,
    }
    assert all(body["return_token_ids"] and body["prompt"] in ([5, 6], [9]) for body in bodies)
    assert list(backend.draw(wanted, set(range(40)))) == []


def test_raw_logprobs_count_only_where_nothing_is_cut(service, tokenizer):
    service.processed = False
    backend = server_backend(service.url, "/models/tuned", tokenizer)

    def logprob(**how):
        ((_, one),) = backend.draw([Request([5, 6], Sampling(**how), 0)], ())
        return one.logprob

    assert logprob() == -1.5
    assert logprob(temperature=0.7) is logprob(top_p=0.5) is logprob(top_k=9) is logprob(temperature=0) is None


def test_no_more_requests_at_once_than_asked_for(service, tokenizer):
    wanted = requests_for([[5]], Sampling(num_samples=30))
    assert len(list(server_backend(service.url, "tuned", tokenizer, concurrency=3).draw(wanted, ()))) == 30
    assert 1 < service.most_running <= 3


def test_lost_connections_and_overload_are_tried_again_with_growing_waits(service, tokenizer, waits):
    backend = server_backend(service.url, "tuned", tokenizer)
    service.failures = ["hang up", 503, 429]
    ((_, one),) = backend.draw([Request([5], Sampling(), 0)], ())
    assert one.stop == "eos" and [wait for wait in waits if wait >= 1] == [1, 2, 4]
    service.failures = [500] * 20
    with pytest.raises(ConnectionError, match=r"/v1/completions answers 500: .*failure 500.*after 6 tries"):
        list(backend.draw([Request([5], Sampling(), 0)], ()))


def test_an_abandoned_run_sends_no_more_requests(service, tokenizer):
    backend = server_backend(service.url, "tuned", tokenizer, concurrency=2)
    draws = backend.draw(requests_for([[5]], Sampling(num_samples=500)), ())
    next(draws)
    draws.close()
    assert len(service.bodies) < 100


def test_a_refused_request_is_told_at_once(service, tokenizer, waits):
    backend = server_backend(service.url, "tuned", tokenizer)
    service.failures = [400]
    with pytest.raises(ValueError, match=r"/v1/completions answers 400: .*failure 400"):
        list(backend.draw([Request([5], Sampling(), 0)], ()))
    assert [wait for wait in waits if wait >= 1] == []


def test_no_server(service, tokenizer, waits):
    backend = server_backend(service.url, "tuned", tokenizer)
    service.shutdown()
    service.server_close()
    with pytest.raises(
        ConnectionError, match=r"No vLLM server answers at http://127.*Start one with `vllm serve MODEL`"
    ):
        server_backend(service.url, "tuned", tokenizer)
    assert waits == []
    with pytest.raises(ConnectionError, match="samples drawn so far are kept"):
        list(backend.draw([Request([5], Sampling(), 0)], ()))
    assert waits == [1, 2, 4, 8, 16]


def test_another_model_another_kind_of_server_and_a_missing_key(service, tokenizer, monkeypatch):
    with pytest.raises(ValueError, match=r"serves tuned, not base. Start it with `vllm serve base`"):
        server_backend(service.url, "base", tokenizer)
    service.token_ids = False
    with pytest.raises(ValueError, match="gives no token ids back"):
        list(server_backend(service.url, "tuned", tokenizer).draw([Request([5], Sampling(), 0)], ()))
    service.key = "secret"
    with pytest.raises(ValueError, match="set the environment variable VLLM_API_KEY"):
        server_backend(service.url, "tuned", tokenizer)
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    del service.pages["/version"]
    assert server_backend(service.url, "tuned", tokenizer).name == "vllm server of unknown version"
    del service.pages["/v1/models"]
    with pytest.raises(ValueError, match="no OpenAI-compatible server: /v1/models gives 404"):
        server_backend(service.url, "tuned", tokenizer)
