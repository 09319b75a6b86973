"""What is tried again and what is not, and what no message may repeat."""

from __future__ import annotations

import errno
import http.server
import socket
import ssl
import threading
from collections.abc import Iterator

import fsspec
import pytest

from lib.files import retries, storage
from lib.files.redaction import redact
from lib.files.store_backends import backend
from lib.files.store_errors import may_pass, plain

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def of_status(kind: str, attribute: str, status: int) -> Exception:
    """As the HTTP client of a backend says it, known here by its name alone."""
    error: Exception = type(kind, (Exception,), {})("the server's words")
    setattr(error, attribute, status)
    return error


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (of_status("HttpError", "code", 503), True),  # gcsfs
        (of_status("HttpError", "code", 429), True),
        (of_status("HttpError", "code", 403), False),
        (of_status("HttpResponseError", "status_code", 500), True),  # adlfs
        (of_status("ResourceNotFoundError", "status_code", 404), False),
        (of_status("ServiceRequestError", "unused", 0), True),
        (of_status("ClientResponseError", "status", 502), True),  # aiohttp
        (of_status("ClientResponseError", "status", 501), False),
        (TimeoutError(), True),
        (ConnectionResetError(errno.ECONNRESET, "reset"), True),
        (OSError(errno.EHOSTUNREACH, "no route"), True),
        (OSError(errno.ENOSPC, "full"), False),
        (PermissionError(errno.EACCES, "no"), False),
        (FileNotFoundError(), False),
        (FileExistsError(), False),
        (KeyboardInterrupt(), False),
        (ValueError("a mistake of ours"), False),
        (caused(ConnectionError(), socket.gaierror(socket.EAI_NONAME, "unknown")), False),
        (caused(ConnectionError(), socket.gaierror(socket.EAI_AGAIN, "try again")), True),
        (caused(ConnectionError(), ssl.SSLCertVerificationError("self-signed")), False),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_what_may_pass_is_told_from_what_stays(error: BaseException, passes: bool) -> None:
    assert may_pass(error) is passes


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (f"s3://KEY:{SECRET}@bucket/a.tar", "s3://***@bucket/a.tar"),
        ("sftp://me:p@ss@host/a", "sftp://***@host/a"),
        ("http://host:8080/a@b, c", "http://host:8080/a@b, c"),
        ("s3://bucket/k@y and s3://b/x:y@z", "s3://bucket/k@y and s3://b/x:y@z"),
        ("GET /a?sig=s%2F1&se=2 failed", "GET /a?sig=***&se=*** failed"),
    ],
)
def test_credentials_in_urls_are_starred(text: str, redacted: str) -> None:
    assert redact(text) == redacted


@pytest.mark.parametrize(
    "name",
    ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_SAS_TOKEN", "HF_TOKEN",
     "AZURE_STORAGE_CONNECTION_STRING", "FTP_PASSWORD"],
)  # fmt: skip
def test_values_of_secret_variables_are_starred_wherever_they_stand(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, SECRET)
    quoted = SECRET.replace("/", "%2F").replace("+", "%2B")
    assert redact(f"wrong: <{SECRET}>, or {quoted}.") == "wrong: <***>, or ***."


def test_values_of_fsspecs_settings_are_starred(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"client_kwargs": {"headers": {"Authorization": f"Bearer {SECRET}"}}, "secret": "x"}
    monkeypatch.setitem(fsspec.config.conf, "https", settings)
    assert redact(f"x: Bearer {SECRET}") == "x: ***", "a value of one letter is no secret"


def test_what_a_server_repeats_of_the_url_is_starred() -> None:
    url = "https://me:hush-hush@host/a?sig=0123456789"
    error = plain(ValueError("hush-hush and 0123456789 are wrong"), url)
    assert str(error).endswith("https://***@host/a?sig=***: *** and *** are wrong")


def test_botocore_repeats_by_the_standard_rules_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_RETRY_MODE", raising=False)
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 7}})
    used = backend("s3://b/a")[0].s3.meta.config
    assert (used.retries["mode"], used.read_timeout, used.connect_timeout) == ("standard", 7, 10)
    monkeypatch.setenv("AWS_RETRY_MODE", "adaptive")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "8")
    used = backend("s3://b/a")[0].s3.meta.config
    assert used.retries == {"mode": "adaptive", "total_max_attempts": 8}


class Web:
    """A web server that answers with each of `answers` in turn, then with the object."""

    def __init__(self) -> None:
        self.answers: list[int | str] = []
        self.asked = 0
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked += 1
                answer = web.answers.pop(0) if web.answers else 200
                if isinstance(answer, int) and answer != 200:
                    self.send_error(answer)
                    return
                self.send_response(200)
                self.send_header("Content-Length", "8")
                self.end_headers()
                self.wfile.write(b"contents"[: 8 if answer == 200 else 3])

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/a.tar"


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.01)
    made = Web()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_web_server_is_asked_again_where_that_can_help(web: Web) -> None:
    web.answers = [503, "cut", 429, 500]
    assert storage.read_bytes(web.url) == b"contents"
    assert web.asked == 5


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [(404, FileNotFoundError, "does not exist"), (403, PermissionError, "check that these"),
     (401, PermissionError, "check that these"), (400, OSError, "400")],
)  # fmt: skip
def test_a_web_server_that_refuses_is_asked_once(
    web: Web, status: int, error: type[OSError], words: str
) -> None:
    web.answers = [status]
    with pytest.raises(error, match=words):
        storage.read_bytes(web.url)
    assert web.asked == 1
