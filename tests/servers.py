"""Servers on this machine for the tests of remote rewards: real sockets, answers by a function."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving(answer):
    """The url of a server that answers each request with `answer(data, headers, path)`.

    The function returns what is sent as JSON, or a status, a dict of headers and the body.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            data = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answered = answer(data, dict(self.headers), self.path)
            if not isinstance(answered, tuple):
                answered = (200, {}, json.dumps(answered).encode())
            status, headers, body = answered
            if status is None:  # hang up without a word
                self.close_connection = True
                return
            try:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
            except ConnectionError:
                pass  # whoever asked has given up waiting

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def in_turn(*answers):
    """A function that gives each of the answers once, and the last of them for ever."""
    left = list(answers)

    def answer(data, headers, path):
        return left.pop(0) if len(left) > 1 else left[0]

    return answer
