"""An S3 server in a process beside the tests, of moto: the real protocol, and objects in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

BUCKET, SECRET = "passages", "SESAME"


def serve() -> None:
    """Serve on a free port, which is printed, until standard input ends."""
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    sys.stdin.read()
    server.stop()


def environment(port: str) -> dict[str, str]:
    """The variables by which s3fs finds the server, and what it may read of this machine."""
    return {
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


@contextmanager
def s3_server(**variables: str) -> Iterator[dict[str, str]]:
    """Run a server with variables of moto; yield the environment of its clients."""
    command = [sys.executable, "-m", __spec__.name]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    ) as process:
        if process.stdout is None or process.stdin is None:
            raise RuntimeError("no pipes")
        try:
            yield environment(process.stdout.readline().strip())
        finally:
            process.stdin.close()


if __name__ == "__main__":
    serve()
