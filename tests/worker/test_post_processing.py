"""What becomes of images that are flagged, and of those that are to be marked."""

import json

import numpy as np
import pytest

from promptmill.producer.errors import PromptmillError
from promptmill.verbs.worker_options import CHECKS, check_environ
from promptmill.worker.checks import Verdict
from promptmill.worker.post_processing import HIDE, treat
from promptmill.worker.settings import ON_UNSAFE, WorkerSettings
from promptmill.worker.watermark import is_marked
from tests.worker.images import smooth_image

PIXELS = smooth_image(256, 320)
BAD = {"checker": Verdict(True, {"score": 0.012, "concepts": [3]}), "mine": Verdict(False)}
GOOD = {"checker": Verdict(False, {"score": -0.08, "concepts": []})}


def test_nothing_asked_for_nothing_done():
    treated = treat(PIXELS, {}, WorkerSettings())
    assert (treated.notes, treated.failure) == ({}, None)
    assert treated.pixels is PIXELS


def test_a_clean_image_is_left_alone_and_says_that_it_was_checked():
    treated = treat(PIXELS, GOOD, WorkerSettings())
    assert treated.pixels is PIXELS
    said = {"flagged": False, "score": -0.08, "concepts": []}
    assert treated.notes == {"safety": {"flagged": False, "checks": {"checker": said}}}


def test_a_flagged_image_is_black_by_default_and_the_record_says_so():
    treated = treat(PIXELS, BAD, WorkerSettings())
    assert treated.pixels.shape == PIXELS.shape
    assert not treated.pixels.any()
    assert treated.failure is None
    safety = json.loads(json.dumps(treated.notes))["safety"]
    assert (safety["flagged"], safety["shown"]) == (True, "black")
    assert safety["checks"]["checker"] == {"flagged": True, "score": 0.012, "concepts": [3]}
    assert safety["checks"]["mine"] == {"flagged": False}


def test_blurred_its_colours_are_left_and_no_detail():
    blurred = treat(PIXELS, BAD, WorkerSettings(on_unsafe="blur"))
    assert blurred.notes["safety"]["shown"] == "blur"
    assert abs(blurred.pixels.mean() - PIXELS.mean()) < 2
    steps = [np.abs(np.diff(pixels.astype(int), axis=1)).mean() for pixels in (blurred.pixels, PIXELS)]
    assert steps[0] < 0.15 * steps[1]


def test_kept_it_is_only_told():
    kept = treat(PIXELS, BAD, WorkerSettings(on_unsafe="keep"))
    assert kept.pixels is PIXELS
    assert (kept.notes["safety"]["flagged"], kept.notes["safety"]["shown"]) == (True, "keep")


def test_failed_it_says_who_flagged_it():
    assert treat(PIXELS, BAD, WorkerSettings(on_unsafe="fail")).failure == "the image was flagged by checker"
    assert treat(PIXELS, GOOD, WorkerSettings(on_unsafe="fail")).failure is None


def test_marked_it_can_be_read_and_is_told():
    treated = treat(PIXELS, {}, WorkerSettings(watermark=True))
    assert treated.notes == {"watermark": "sdxl-dwtdct"}
    assert is_marked(treated.pixels)
    assert treat(PIXELS, {}, WorkerSettings(marks="xmp,watermark")).notes == {"watermark": "sdxl-dwtdct"}
    assert treat(PIXELS, {}, WorkerSettings()).notes == {}
    blurred = treat(PIXELS, BAD, WorkerSettings(watermark=True, on_unsafe="blur"))
    assert is_marked(blurred.pixels), "marked last"


def test_too_small_to_be_read_it_is_not_marked():
    small = PIXELS[:200]
    treated = treat(small, {}, WorkerSettings(watermark=True))
    assert treated.notes == {"watermark": "none: smaller than 256x256"}
    assert treated.pixels is small


def test_every_way_that_can_be_named_is_there():
    assert set(ON_UNSAFE) == {*HIDE, "fail"}


@pytest.mark.parametrize(("text", "wanted"), [("1", True), ("True", True), ("off", False), ("False", False)])
def test_the_environment_says_what_the_flags_say(text, wanted):
    environ = {
        "PROMPTMILL_WATERMARK": text,
        "PROMPTMILL_ON_UNSAFE": "blur",
        "PROMPTMILL_SAFETY_CHECKER": "a/b",
        "PROMPTMILL_IMAGE_CHECK": "m:f,m:g",
    }
    settings = WorkerSettings.from_env(environ)
    assert (settings.watermark, settings.on_unsafe, settings.safety_checker) == (wanted, "blur", "a/b")
    assert settings.image_check == "m:f,m:g"
    given = {name: getattr(settings, name) for name in CHECKS}
    assert WorkerSettings.from_env(check_environ(given)) == settings


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("WATERMARK", "perhaps", "PROMPTMILL_WATERMARK: must be true or false, got 'perhaps'"),
        ("ON_UNSAFE", "hide", "PROMPTMILL_ON_UNSAFE: must be black or blur or keep or fail, got 'hide'"),
        ("LEASE_S", "long", "PROMPTMILL_LEASE_S: must be a number, got 'long'"),
    ],
)
def test_a_wrong_value_is_told(name, value, told):
    with pytest.raises(PromptmillError, match=told):
        WorkerSettings.from_env({f"PROMPTMILL_{name}": value})
