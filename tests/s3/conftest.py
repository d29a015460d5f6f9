"""An S3 server behind a proxy that can be told to fail; the whole environment of these tests goes through it.

The server is moto's, or the one at VELFIELD_TEST_S3_ENDPOINT with VELFIELD_TEST_S3_KEY and VELFIELD_TEST_S3_SECRET.
"""

import logging
import os
import uuid
from collections import namedtuple

import boto3
import pytest
from s3.faulty_proxy import FaultyProxy

from velfield.files import storage
from velfield.files.object_store import ObjectStore

Server = namedtuple("Server", "endpoint key secret")


@pytest.fixture(scope="package")
def server():
    if endpoint := os.environ.get("VELFIELD_TEST_S3_ENDPOINT"):
        yield Server(endpoint, os.environ["VELFIELD_TEST_S3_KEY"], os.environ["VELFIELD_TEST_S3_SECRET"])
        return
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield Server(f"http://{host}:{port}", "AKTESTONLY", "only-a-test-s3cret")
    moto.stop()


@pytest.fixture(scope="package")
def gate(server):
    """The proxy, and an environment in which AWS is behind it."""
    with FaultyProxy(upstream=server.endpoint) as proxy, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", server.key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", server.secret)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        ObjectStore.clear_instance_cache()
        yield proxy
    ObjectStore.clear_instance_cache()


@pytest.fixture(scope="package")
def bucket(server, gate):
    name = f"velfield-{uuid.uuid4().hex[:12]}"
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.key,
        aws_secret_access_key=server.secret,
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=name)
    yield f"s3://{name}"
    gate.faults = {}
    storage.remove(f"s3://{name}")  # with all that is in it


@pytest.fixture
def proxy(gate):
    """Without faults, with nothing counted; the test may change that."""
    gate.requests.clear()
    yield gate
    gate.faults, gate.only, gate.most = {}, lambda method, path: True, 4  # noqa: ARG005
    storage.forget_options()


@pytest.fixture
def place(bucket, proxy):  # noqa: ARG001
    """An empty folder in the bucket."""
    return f"{bucket}/{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def client(gate):  # noqa: ARG001
    from velfield.pipelines.cluster import connect

    with connect(workers=2, quiet=True) as client:
        yield client
