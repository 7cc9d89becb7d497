"""C2PA content credentials: a signed statement within the file that a model made the image.

    signer = load_signer(settings)
    signed = signer.sign("image/png", data)

It is the last thing that happens to a file: any byte that is changed afterwards breaks it. The library is c2pa-python,
of the extra `promptmill[c2pa]`; certificate and key are the user's.
"""

import io
import json
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from promptmill.producer.errors import PromptmillError
from promptmill.producer.marks import AI_MADE
from promptmill.worker.settings import WorkerSettings

LIBRARY_SETTINGS = {"builder": {"thumbnail": {"enabled": False}}}
"""The library would put a JPEG of some 200 kB into each image."""


class CredentialsError(PromptmillError):
    """Images cannot be signed as asked for."""


class Signer:
    """Signs files with one certificate. Thread-safe."""

    def __init__(self, certificate: bytes, key: bytes, timestamp_url: str | None = None) -> None:
        """Raises CredentialsError."""
        try:
            import c2pa
        except ImportError as error:
            raise CredentialsError("c2pa-python is not installed here: pip install 'promptmill[c2pa]'") from error
        self._c2pa: Any = c2pa
        self._lock = threading.Lock()
        ta_url = timestamp_url.encode() if timestamp_url else None
        try:
            info = c2pa.C2paSignerInfo(alg=_algorithm(key), sign_cert=certificate, private_key=key, ta_url=ta_url)
            self._signer = c2pa.Signer.from_info(info)
            self._context = c2pa.Context(c2pa.Settings.from_dict(LIBRARY_SETTINGS))
        except c2pa.C2paError as error:
            raise CredentialsError(f"the certificate or its key cannot be used: {error}") from error

    def sign(self, content_type: str, data: bytes) -> bytes:
        """The file with its credentials. Raises CredentialsError."""
        signed = io.BytesIO()
        try:
            with self._lock, self._c2pa.Builder(_statement(content_type), self._context) as builder:
                builder.sign(self._signer, content_type, io.BytesIO(data), signed)
        except self._c2pa.C2paError as error:
            raise CredentialsError(f"the image cannot be signed: {error}") from error
        return signed.getvalue()


def load_signer(settings: WorkerSettings) -> Signer | None:
    """The signer that the settings ask for, None where they ask for none. Raises CredentialsError."""
    if "c2pa" not in settings.layers:
        return None
    if not settings.c2pa_certificate or not settings.c2pa_key:
        raise CredentialsError("--marks c2pa needs --c2pa-certificate and --c2pa-key")
    try:
        certificate, key = (Path(name).read_bytes() for name in (settings.c2pa_certificate, settings.c2pa_key))
    except OSError as error:
        raise CredentialsError(f"cannot read {error.filename}: {error.strerror}") from error
    signer = Signer(certificate, key, settings.c2pa_timestamp)
    signer.sign("image/png", _one_pixel())  # what is wrong with a certificate is found here, and not at the first image
    return signer


def _statement(content_type: str) -> str:
    action = {"action": "c2pa.created", "digitalSourceType": AI_MADE}
    return json.dumps(
        {
            "claim_generator_info": [{"name": "promptmill", "version": version("promptmill")}],
            "format": content_type,
            "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}],
        }
    )


def _one_pixel() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "PNG")
    return file.getvalue()


def _algorithm(key: bytes) -> bytes:
    """C2PA's name of what the key signs with. Raises CredentialsError."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        loaded = load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as error:
        raise CredentialsError(f"the key must be PEM without a password: {error}") from error
    if isinstance(loaded, rsa.RSAPrivateKey):
        return b"ps256"
    if isinstance(loaded, ed25519.Ed25519PrivateKey):
        return b"ed25519"
    size = loaded.curve.key_size if isinstance(loaded, ec.EllipticCurvePrivateKey) else 0
    if size not in _CURVES:
        raise CredentialsError(f"C2PA does not support keys of this type: {type(loaded).__name__}")
    return _CURVES[size]


_CURVES = {256: b"es256", 384: b"es384", 521: b"es512"}
