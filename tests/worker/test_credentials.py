"""Content credentials, made with a certificate of the test's own and read back by the library that others read with."""

import datetime
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

from promptmill.dataset.images import look_at
from promptmill.producer.job import Job
from promptmill.producer.layout import Look, look_inside
from promptmill.producer.marks import AI_MADE
from promptmill.worker.credentials import CredentialsError, load_signer
from promptmill.worker.encode import a1111_parameters, encode_png, job_id_inside
from promptmill.worker.settings import WorkerSettings

c2pa = pytest.importorskip("c2pa")

JOB = Job(prompt="a cat", width=64, height=32)
PIXELS = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
PEM = serialization.Encoding.PEM


def write_certificate(folder: Path) -> Path:
    """`chain.pem` and `key.pem`: what a user gets of an authority, whose own certificate is the second in the chain."""
    folder.mkdir(exist_ok=True)
    root, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    chain = _certificate("mine", leaf, root, authority=False), _certificate("root", root, root, authority=True)
    (folder / "chain.pem").write_bytes(b"".join(one.public_bytes(PEM) for one in chain))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(leaf.private_bytes(PEM, *plain))
    return folder


def _certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey, *, authority: bool
) -> x509.Certificate:
    usages = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    only = dict.fromkeys((*usages, "encipher_only", "decipher_only"), False)
    usage = x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **only)
    today = datetime.datetime.now(datetime.UTC)
    mail = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])  # one of those that C2PA takes
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name("root"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    return (builder if authority else builder.add_extension(mail, critical=True)).sign(signer, hashes.SHA256())


def _name(subject: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, subject), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "tests")]
    )


def settings_with(folder: Path, marks: str = "xmp,c2pa") -> WorkerSettings:
    return WorkerSettings(marks=marks, c2pa_certificate=str(folder / "chain.pem"), c2pa_key=str(folder / "key.pem"))


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    return settings_with(write_certificate(tmp_path))


def signed(settings: WorkerSettings) -> bytes:
    signer = load_signer(settings)
    assert signer is not None
    return signer.sign("image/png", encode_png(PIXELS, JOB))


def read(data: bytes) -> dict[str, Any]:
    with c2pa.Reader("image/png", io.BytesIO(data)) as reader:
        told: dict[str, Any] = json.loads(reader.json())
        return {**told, "state": reader.get_validation_state()}


def test_the_librarys_reader_finds_the_statement_valid(settings: WorkerSettings):
    told = read(signed(settings))
    assert told["state"] == "Valid"
    statement = told["manifests"][told["active_manifest"]]
    (action,) = statement["assertions"][0]["data"]["actions"]
    assert (action["action"], action["digitalSourceType"]) == ("c2pa.created", AI_MADE)
    assert (statement["claim_generator_info"][0]["name"], statement["signature_info"]["common_name"]) == (
        "promptmill",
        "mine",
    )
    assert "thumbnail" not in statement


def test_the_image_is_ours_as_before_and_readable_by_others(settings: WorkerSettings):
    data = signed(settings)
    assert job_id_inside(data) == JOB.id
    assert look_inside(JOB.id, len(data), lambda start, length: data[start:][:length]) is Look.OURS
    assert look_at(data, decode=True).marks == ("xmp", "c2pa")
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(np.asarray(image), PIXELS)
        assert image.info["parameters"] == a1111_parameters(JOB)


def test_a_byte_that_is_changed_afterwards_breaks_it(settings: WorkerSettings):
    data = signed(settings)
    assert read(data.replace(b"Steps: 50", b"Steps: 51"))["state"] == "Invalid"


def test_many_threads_sign_with_one_signer(settings: WorkerSettings):
    signer = load_signer(settings)
    assert signer is not None
    data = encode_png(PIXELS, JOB)
    with ThreadPoolExecutor(8) as threads:
        files = list(threads.map(lambda _: signer.sign("image/png", data), range(24)))
    assert {read(one)["state"] for one in files} == {"Valid"}


def test_nothing_is_signed_unless_asked_for(tmp_path: Path):
    assert load_signer(settings_with(write_certificate(tmp_path), marks="xmp")) is None


def test_what_is_wrong_is_a_sentence_before_the_first_image(tmp_path: Path):
    with pytest.raises(CredentialsError, match="--marks c2pa needs --c2pa-certificate and --c2pa-key"):
        load_signer(WorkerSettings(marks="c2pa"))
    with pytest.raises(CredentialsError, match=r"cannot read .*chain.pem: No such file"):
        load_signer(settings_with(tmp_path))
    mine, other = write_certificate(tmp_path / "mine"), write_certificate(tmp_path / "other")
    (mine / "key.pem").write_text("no key")
    with pytest.raises(CredentialsError, match="the key must be PEM without a password"):
        load_signer(settings_with(mine))
    (mine / "key.pem").write_bytes((other / "key.pem").read_bytes())
    with pytest.raises(CredentialsError):
        load_signer(settings_with(mine))
