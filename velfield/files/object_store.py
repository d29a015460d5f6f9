"""S3 and what speaks its protocol, for long jobs: every request is tried again where that can help, and errors say why.

`ObjectStore` is s3fs with three changes. Retries: botocore retries a request but not the body of its answer, s3fs a few
errors of either, and both multiply; here is one loop, around the request and its body. Answers are checked: a body is
as long as its ``Content-Range`` says, and a whole object has the MD5 that its tag states. Listings are not kept, so
that what another process wrote or removed is seen. docs/object-storage.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import re
import weakref
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import botocore.exceptions as boto
from fsspec.asyn import sync_wrapper
from s3fs.core import S3_RETRYABLE_ERRORS, S3FileSystem
from s3fs.errors import translate_boto_error

from velfield.errors import StorageError, StorageFailedError

RETRIES = 8  # with the waits below up to 45 s: longer than a gateway takes to start again
FIRST_WAIT, LONGEST_WAIT = 0.2, 20.0  # s; the wait doubles, and half of it is random so that workers do not march
NEVER_ANSWERED = 2  # retries of an endpoint that has not answered once: a wrong name shows soon
CONNECTIONS = 32  # at once, for each process; botocore's 10 leave a distant store idle

TRANSIENT = (
    *S3_RETRYABLE_ERRORS,
    boto.ConnectionError,
    boto.HTTPClientError,
    boto.IncompleteReadError,
    boto.FlexibleChecksumError,
    ConnectionError,
    asyncio.TimeoutError,
)
TRANSIENT_CODES = {
    "BadDigest", "IncompleteBody", "InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable",
    "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "XAmzContentSHA256Mismatch",
}  # fmt: skip
DENIED_CODES = {
    "401", "403", "AccessDenied", "AccountProblem", "AllAccessDisabled", "ExpiredToken", "Forbidden",
    "InvalidAccessKeyId", "InvalidPayer", "InvalidSecurity", "InvalidToken", "NotSignedUp", "RequestTimeTooSkewed",
    "SignatureDoesNotMatch", "Unauthorized",
}  # fmt: skip
REGION_CODES = {
    "301", "307", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect",
    "TemporaryRedirect",
}  # fmt: skip
MISSING_CODES = {"404", "NoSuchKey", "NoSuchUpload", "NoSuchVersion"}


class DamagedAnswerError(Exception):
    """A body that is shorter than its own header says, or has not the MD5 of its object."""


class ObjectStore(S3FileSystem):
    """``s3://``, with patience: see the module.

    Parameters
    ----------
    asynchronous : bool
        For use inside coroutines, as Zarr does.
    **options
        Those of s3fs. ``config_kwargs["retries"]["max_attempts"]`` is the number of retries; so is, less one,
        ``AWS_MAX_ATTEMPTS``.
    """

    def __init__(self, *args: Any, asynchronous: bool = False, **options: Any) -> None:
        config = dict(options.pop("config_kwargs", None) or {})
        self.tries = 1 + _retries(config.pop("retries", None))
        config = {"max_pool_connections": CONNECTIONS, **config, "retries": {"total_max_attempts": 1}}
        options.pop("use_listings_cache", None)
        super().__init__(*args, asynchronous=asynchronous, config_kwargs=config, use_listings_cache=False, **options)
        self._answered = False  # whether the endpoint ever has
        self._tags_are_md5 = True  # until one is not

    async def set_session(self, refresh: bool = False, kwargs: Mapping[str, Any] = {}) -> Any:
        """Return the client, made if there is none yet."""
        before = self._s3
        client = await super().set_session(refresh, dict(kwargs))
        if self.asynchronous and client is not before:  # s3fs closes only those that are not
            weakref.finalize(self, _hang_up, client)
        return client

    async def _call_s3(self, method: str, *akwarglist: Any, **kwargs: Any) -> Any:
        return await self._patiently(kwargs, lambda: self._once(method, *akwarglist, **kwargs))

    call_s3 = sync_wrapper(_call_s3)

    async def _once(self, method: str, *akwarglist: Any, **kwargs: Any) -> Any:
        await self.set_session()
        client = await self.get_s3(kwargs.get("Bucket"))
        call = getattr(client, method)
        return await call(**self._get_s3_method_kwargs(call, *akwarglist, **kwargs))

    async def _cat_file(
        self, path: str, version_id: str | None = None, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        """One request; s3fs asks for the size first."""
        bucket, key, version = self.split_path(path)
        request = {"Bucket": bucket, "Key": key}
        if version_id or version:
            request["VersionId"] = version_id or version
        whole = start is None and end is None
        if not whole:
            if start is not None and end is not None and 0 <= end <= start:
                return b""
            request["Range"] = await self._process_limits(path, start, end)
        seen: list[bytes] = []  # digests of bodies that did not fit their tag

        async def fetch() -> bytes:
            answer = await self._once("get_object", **request)
            try:
                data: bytes = await answer["Body"].read()
            finally:
                answer["Body"].close()
            if whole:
                await self._check_tag(request, answer, data, seen)
                return data
            if "ContentRange" not in answer:  # the server sent everything
                return data[start if start is None or start < 0 else min(start, len(data)) : end]
            first, last = map(int, re.findall(r"\d+", answer["ContentRange"])[:2])
            if len(data) != last - first + 1:
                raise DamagedAnswerError(f"{len(data)} bytes came of {last - first + 1}")
            return data

        return bytes(await self._patiently(request, fetch))

    async def _check_tag(
        self, request: Mapping[str, Any], answer: Mapping[str, Any], data: bytes, seen: list[bytes]
    ) -> None:
        """Hold a body against the object's MD5, which its tag is unless the object was put in parts or encrypted."""
        tag = str(answer.get("ETag", "")).strip('"')
        encrypted = answer.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in answer
        if not self._tags_are_md5 or encrypted or not re.fullmatch("[0-9a-f]{32}", tag):
            return
        digest = hashlib.md5(data, usedforsecurity=False)
        if digest.hexdigest() == tag:
            return
        if digest.digest() in seen and (await self._once("head_object", **request))["ContentLength"] == len(data):
            self._tags_are_md5 = False  # twice the same, and whole: this server's tags are something else
            return
        seen.append(digest.digest())
        raise DamagedAnswerError(f"MD5 of the body is {digest.hexdigest()}, the object's {tag}")

    async def _patiently(self, request: Mapping[str, Any], attempt: Callable[[], Awaitable[Any]]) -> Any:
        """Await ``attempt()``, again after a wait where the error may pass."""
        for number in range(self.tries):
            try:
                result = await attempt()
            except Exception as error:
                self._answered = self._answered or isinstance(error, boto.ClientError)
                last = self.tries - 1 if self._answered else min(self.tries - 1, NEVER_ANSWERED)
                if number >= last or not _may_pass(error):
                    raise self._explained(error, _url(request), number + 1) from error
            else:
                self._answered = True
                return result
            await asyncio.sleep(min(LONGEST_WAIT, FIRST_WAIT * 2**number) * random.uniform(0.5, 1))
        raise AssertionError("not reached")

    def _explained(self, error: Exception, url: str, attempts: int) -> Exception:
        """Our one line, or what callers wait for: FileNotFoundError, and s3fs's own for the rest."""
        if isinstance(error, StorageError | FileNotFoundError):
            return error
        code, reason = _code(error), _without_password(_reason(error))
        if _may_pass(error):
            what = "object storage fails again and again" if self._answered else "object storage cannot be reached"
            return (StorageFailedError if self._answered else StorageError)(
                f"{what}: url={url}, endpoint={self._endpoint()}, attempts={attempts}, reason={reason}; "
                "check the endpoint (--storage-option endpoint_url=…, AWS_ENDPOINT_URL) and the network, "
                "then run the same command again"
            )
        if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
            return StorageError(
                f"no credentials for object storage: url={url}, reason={reason}; set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or read a public bucket with --storage-option anon=true"
            )
        if code in DENIED_CODES:
            return StorageError(
                f"access denied: url={url}, endpoint={self._endpoint()}, reason={reason}; "
                "check the credentials, the bucket's policy, and that this is the right endpoint"
            )
        if code == "NoSuchBucket":
            return StorageError(
                f"no such bucket: url={url}, endpoint={self._endpoint()}; check its name and the endpoint, or make it"
            )
        if code in MISSING_CODES:
            return FileNotFoundError(url)
        if code in REGION_CODES:
            return StorageError(
                f"the bucket is in another region: url={url}, reason={reason}; "
                "give --storage-option client_kwargs.region_name=…, or AWS_DEFAULT_REGION"
            )
        if code == "416":
            return translate_boto_error(error)  # Zarr knows this one by its text
        if isinstance(error, boto.ClientError | boto.BotoCoreError | ValueError | TypeError):
            return StorageError(
                f"object storage refuses: url={url}, endpoint={self._endpoint()}, reason={reason}; "
                "check the URL, the endpoint and the storage options"
            )
        return error

    def _endpoint(self) -> str:
        client = getattr(self._s3, "meta", None)
        named = client.endpoint_url if client else self.endpoint_url or os.environ.get("AWS_ENDPOINT_URL", "AWS")
        return _without_password(str(named))


def _hang_up(client: Any) -> None:
    """Close a client's sockets at once: at the end of a process nobody is there to await it."""
    with contextlib.suppress(AttributeError):  # it is the way of today's aiobotocore and aiohttp
        for session in client._endpoint.http_session._sessions.values():
            connector = session.connector
            session.detach()
            connector._close()


def _retries(given: Any) -> int:
    if isinstance(given, Mapping):
        if "total_max_attempts" in given:
            return max(0, int(given["total_max_attempts"]) - 1)
        given = given.get("max_attempts")
    if given is None and os.environ.get("AWS_MAX_ATTEMPTS", "").isdecimal():
        return max(0, int(os.environ["AWS_MAX_ATTEMPTS"]) - 1)
    return RETRIES if given is None else max(0, int(given))


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, boto.ProxyConnectionError | boto.SSLError):
        return False
    if isinstance(error, boto.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return _code(error) in TRANSIENT_CODES or status in (408, 429) or (status >= 500 and status != 501)
    return isinstance(error, (*TRANSIENT, DamagedAnswerError))


def _code(error: Exception) -> str:
    response = getattr(error, "response", None) or {}
    code = str(response.get("Error", {}).get("Code", ""))
    status = str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    return "416" if code == "InvalidRange" or status == "416" else code


def _reason(error: Exception) -> str:
    """What the server said, or the client's words, in one line."""
    said = (getattr(error, "response", None) or {}).get("Error", {})
    text = f"{said.get('Code')}: {said['Message']}" if said.get("Message") else str(error)
    return " ".join((text or type(error).__name__).split())[:300]


def _url(request: Mapping[str, Any]) -> str:
    return "/".join(["s3:/", *(str(request[k]).rstrip("/") for k in ("Bucket", "Key", "Prefix") if request.get(k))])


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s\"']+@", "//", text)
